"""Running a flow from Python or the command line, with Prefect's server as long as it answers, else without."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect import Flow

logger = logging.getLogger(__name__)

LOCAL_SERVER = "http://127.0.0.1:4200/api"
"""The server that `overedit ui` starts."""

WORK_POOL = "overedit"
"""The work pool of the deployments."""

FLOW_RUN_TAG = "overedit"
"""The tag of every flow run; deployments/automations.yaml looks at no others."""


def for_plan(of: Flow[..., str], run: Callable[[bool], str]) -> Flow[..., str]:
    """The same flow for an existing plan: the command line checks its input before a server starts.

    Args:
        of: The flow that makes its plan from a configuration.
        run: Runs the existing plan; its argument says whether to wait for another process that works on the run.
    """
    from prefect import flow

    @flow(name=of.name, flow_run_name=of.flow_run_name, persist_result=False)
    def planned(config: Any, wait: bool = False) -> str:
        return run(wait)

    return planned


def execute(flow: Flow[..., Any], config: Any, *, wait: bool) -> tuple[Any, bool]:
    """Run a flow; if Prefect's server stops answering, run the rest without it.

    Returns:
        The flow's result, and whether the server was lost.

    Raises:
        KeyboardInterrupt: A stop was requested, whether or not the server could be told of it: who stops a process
            group or a service stops the server too.
    """
    from httpx import HTTPError
    from prefect import tags
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError

    try:
        with tags(FLOW_RUN_TAG):
            return flow(config, wait=wait), False
    except (HTTPError, ConcurrencySlotAcquisitionError) as error:
        if (stop := _stop_behind(error)) is not None:
            raise stop from None
        logger.warning("Prefect's server went away; the run goes on without it, and its UI shows no more of it")
        return flow.fn(config, wait=wait), True  # stages that are stored are not repeated


def _stop_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interrupt whose report to the server failed."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def prepare_prefect() -> None:
    """Set Prefect's environment variables that a user would have to export; variables that are set are kept."""
    prepare_operation()
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # failures are one line of ours
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "3")  # 14 s: a run can do without the server


def prepare_operation() -> None:
    """The same for Prefect's server, its workers and their flow runs, whose errors are Prefect's to show."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "overedit")  # our lines are logs of the flow run
    os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")  # and others stay on the terminal
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")  # seconds; automations.yaml counts on it


def default_home() -> Path:
    """The folder of the results of deployed flows, or the working copy of its URL: $OVEREDIT_HOME, or ~/overedit."""
    from overedit.tasks.storage.working_copy import local_home

    return local_home(os.environ.get("OVEREDIT_HOME") or "~/overedit", "OVEREDIT_HOME").expanduser()


def answering_server() -> str:
    """The URL of the API of the server that is set for Prefect, or of `overedit ui`'s where none is.

    Raises:
        RuntimeError: No server answers there.
    """
    import httpx
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value() or LOCAL_SERVER
    try:
        httpx.get(f"{url}/health", timeout=10)
    except httpx.HTTPError as error:
        raise RuntimeError(
            f"no Prefect server answers at {url} ({error}); start one with: overedit ui, or set PREFECT_API_URL"
        ) from error
    return url


def prepare_logging() -> None:
    """Log to the terminal: Overedit's messages, the warnings of other packages, and nothing of Prefect."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(
        lambda record: (
            record.name.startswith("overedit.")
            or (record.levelno >= logging.WARNING and not record.name.startswith("prefect"))
        )
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
