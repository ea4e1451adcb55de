"""A flow started from the command line: what is set before Prefect is imported, and the run without its server.

Prefect reads its settings when it is imported, so this module imports it inside `launch` alone.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)


def prepare_prefect() -> None:
    """Settings of Prefect that a person would otherwise have to export; those that are set already stay."""
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")  # what fails is said here, in one line
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", "3")  # 14 s: a run does not need the server that is gone


def prepare_logging() -> None:
    """Our own notes on the terminal; of other packages only warnings, and nothing of Prefect, which fails as we do."""
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


def launch(flow: Any, config: Any, *, wait: bool, show: Callable[[Any], None]) -> None:
    """Run a flow to its end and show what it returns; a stop that was asked for ends the process with exit code 130.

    Args:
        flow: Takes (config, wait=).
        config: Its configuration.
        wait: Wait for another process that works on the run.
        show: Told what the flow returns.
    """
    from httpx import HTTPError
    from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError

    is_alone = False
    try:
        try:
            result = flow(config, wait=wait)
        except (HTTPError, ConcurrencySlotAcquisitionError):
            is_alone = True
            logger.warning("Prefect's server went away; the run goes on without it, and its UI shows no more of it")
            result = flow.fn(config, wait=wait)  # what is stored already is not done again
    except KeyboardInterrupt as stop:
        sys.stderr.write(f"overedit: {stop or 'interrupted'}; the same command continues\n")
        sys.exit(130)
    show(result)
    if is_alone:  # or Prefect would try, for seconds each, to tell its server of every task
        sys.stdout.flush()
        os._exit(0)
