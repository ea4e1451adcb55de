"""Running a flow from Python or the command line: with Prefect's server, and without it once that does not answer."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from overedit.tasks.runs.completion import completed_run, write_completion
from overedit.tasks.runs.run import Run

if TYPE_CHECKING:
    from prefect import Flow

logger = logging.getLogger(__name__)


class Finished(NamedTuple):
    """A run that has ended well."""

    run: Run
    server_is_lost: bool = False
    """Prefect's server went away; at its exit this process would try, for seconds each, to report every task."""


def run_benchmark(content: Mapping[str, Any], *, where: str, wait: bool = False) -> Finished:
    """Run a benchmark, or continue it; one that is complete and unchanged starts no server and no engine.

    Args:
        content: The keys of a configuration.
        where: What its errors call it.
        wait: Where another process works on the run, wait until it has ended.

    Raises:
        ValueError: The configuration does not fit; no server has been started then.
        RuntimeError: A trajectory failed, or another process works on the run.
    """
    if (run := completed_run(content)) is not None:
        logger.info("run %r was complete: nothing was edited or measured again", run.name)
        return Finished(run)
    prepare_prefect()
    from overedit.flows.benchmark import flow_of
    from overedit.flows.config.loading import validated
    from overedit.flows.config.models import BenchmarkConfig
    from overedit.flows.plan import make_plan
    from overedit.tasks.system.locks import check_run_is_free
    from overedit.tasks.system.progress import shown

    config = validated(BenchmarkConfig, dict(content), where=where)
    plan = make_plan(config, show=shown)
    if not wait:
        check_run_is_free(plan.run.folder)
    _, server_is_lost = execute(flow_of(plan), config, wait=wait)
    if config.is_local:
        write_completion(plan.run, content)
    return Finished(plan.run, server_is_lost)


def execute(flow: Flow[..., Any], config: Any, *, wait: bool) -> tuple[Any, bool]:
    """Run a flow to its end; it goes on without Prefect's server when that goes away.

    Returns:
        What the flow returns, and whether the server went away.
    """
    from httpx import HTTPError
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError

    try:
        return flow(config, wait=wait), False
    except (HTTPError, ConcurrencySlotAcquisitionError):
        logger.warning("Prefect's server went away; the run goes on without it, and its UI shows no more of it")
        return flow.fn(config, wait=wait), True  # what is stored already is not done again


def prepare_prefect() -> None:
    """Set what a person would otherwise have to export for Prefect; what is set already stays."""
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # failures are one line of our own
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "3")  # 14 s: a run does not need the server that is gone


def prepare_logging() -> None:
    """Show our own log on the terminal; of other packages warnings only, and of Prefect nothing."""
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
