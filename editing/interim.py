"""Leaving a trajectory between two scheduled counts: when it is kept, and how it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


def never() -> bool:
    """Nobody asks for a stop."""
    return False


class Interim(NamedTuple):
    """When a trajectory writes what it has between two scheduled counts; turns are never cut."""

    seconds: float = 600.0
    """That much work is lost at most when the process is killed, and a turn."""
    stop_asked: Callable[[], bool] = never
    """Looked at after each turn: True writes an interim checkpoint and raises `StoppedError`."""


EVERY_TEN_MINUTES = Interim()


class StoppedError(KeyboardInterrupt):
    """A trajectory that was asked to stop and has kept what it had; an interrupt, so nothing takes it for a failure."""
