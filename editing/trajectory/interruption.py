"""Interruption of a trajectory between two scheduled counts: interim checkpoints and stop requests."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple


def never() -> bool:
    """Never request a stop."""
    return False


class CheckpointPolicy(NamedTuple):
    """When a trajectory writes an interim checkpoint; turns are never interrupted."""

    seconds: float = 600.0
    """Seconds between interim checkpoints: the most work lost to a killed process, plus one turn."""
    stop_asked: Callable[[], bool] = never
    """Called after each turn: True writes an interim checkpoint and raises `StoppedError`."""


EVERY_TEN_MINUTES = CheckpointPolicy()


class StoppedError(KeyboardInterrupt):
    """A trajectory stopped on request, its work saved; an interrupt, so that no handler takes it for a failure."""


logger = logging.getLogger(__name__)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM and SIGINT request a stop inside the block; the earlier handlers are restored after it.

    Yields:
        Returns whether a stop was requested. Outside the main thread, which alone can handle signals, never True.

    Raises:
        StoppedError: A stop was requested after the block had last checked.
    """
    if threading.current_thread() is not threading.main_thread():
        yield never
        return
    asked = threading.Event()

    def ask(number: int, _: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        logger.warning("%s: stopping after this turn; once more stops at once", signal.Signals(number).name)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked.is_set():
        raise StoppedError("stopped when its last turn was done, as asked")
