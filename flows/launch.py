"""Running a flow from Python or the command line: with Prefect's server, and without it once that does not answer."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect import Flow

logger = logging.getLogger(__name__)


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
