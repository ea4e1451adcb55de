"""Leaving a trajectory between two scheduled counts: when it is kept, and how it is stopped."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple


def never() -> bool:
    """Nobody asks for a stop."""
    return False


class CheckpointPolicy(NamedTuple):
    """When a trajectory writes what it has between two scheduled counts; turns are never cut."""

    seconds: float = 600.0
    """That much work is lost at most when the process is killed, and a turn."""
    stop_asked: Callable[[], bool] = never
    """Looked at after each turn: True writes an interim checkpoint and raises `StoppedError`."""


EVERY_TEN_MINUTES = CheckpointPolicy()


class StoppedError(KeyboardInterrupt):
    """A trajectory that was asked to stop and has kept what it had; an interrupt, so nothing takes it for a failure."""


logger = logging.getLogger(__name__)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM and SIGINT ask for a stop inside the block; the handlers before are back after it.

    Yields:
        Whether a stop has been asked for. Outside the main thread, which alone can handle signals, never.

    Raises:
        StoppedError: A stop was asked for when the block was almost at its end and looked no more.
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
