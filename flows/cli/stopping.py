"""How a command that runs a flow ends: stopped on request, or after Prefect's server was lost."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_ends_with_130() -> Iterator[None]:
    """End with exit code 130 when the work in the block was stopped on request."""
    try:
        yield
    except KeyboardInterrupt as stop:
        print(f"overedit: {stop or 'interrupted'}; the same command continues", file=sys.stderr)
        sys.exit(130)


def leave(server_is_lost: bool) -> None:
    """Exit at once if the server is lost: Prefect would retry the report of every task for seconds."""
    if server_is_lost:
        sys.stdout.flush()
        os._exit(0)
