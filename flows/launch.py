"""Running a flow from Python or the command line, with Prefect's server as long as it answers, else without."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect import Flow

logger = logging.getLogger(__name__)


def execute(flow: Flow[..., Any], config: Any, *, wait: bool) -> tuple[Any, bool]:
    """Run a flow; if Prefect's server stops answering, run the rest without it.

    Returns:
        The flow's result, and whether the server was lost.
    """
    from httpx import HTTPError
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError

    try:
        return flow(config, wait=wait), False
    except (HTTPError, ConcurrencySlotAcquisitionError):
        logger.warning("Prefect's server went away; the run goes on without it, and its UI shows no more of it")
        return flow.fn(config, wait=wait), True  # stages that are stored are not repeated


def prepare_prefect() -> None:
    """Set Prefect's environment variables that a user would have to export; variables that are set are kept."""
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # failures are one line of ours
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "3")  # 14 s: a run can do without the server


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
