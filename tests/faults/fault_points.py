"""Where a fault can hit: points that a running attempt passes, counted from the outside.

File operations are seen by Python's own audit hook, which comes before the operation; flushes, the writing of tensors
(which happens below Python) and the steps of editing and measuring are wrapped. Nothing in the product knows of this.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch

import overedit.editing.trajectory.checkpoint
import overedit.editing.trajectory.editor
import overedit.tasks.evaluation.evaluator
from overedit.tasks.engine.transformers_engine import TransformersEngine

FILE_OPERATIONS = {
    "open": "open",
    "os.rename": "rename",
    "os.remove": "remove",
    "os.rmdir": "remove",
    "os.mkdir": "mkdir",
}
"""Audit event -> operation; an open counts where it is to write."""
WRITING = ("open", "mkdir", "flush", "tensors")
PLACES = {"runs": "checkpointing", "warehouse": "warehouse writing", "reports": "reporting"}
"""Folder of the home -> what writes there."""


class Point(NamedTuple):
    """What an attempt does again and again."""

    phase: str
    """`editing`, `swapping`, `scoring`, or one of the values of `PLACES`."""
    operation: str


class Hit(NamedTuple):
    """The `number`-th time that a point is passed, 1 the first."""

    point: Point
    number: int


def kill() -> None:
    """What the kernel does to a process that uses too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def terminate() -> None:
    """What a batch system does to a job whose time is over."""
    os.kill(os.getpid(), signal.SIGTERM)


def no_space() -> None:
    """What the file system says when it is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Points:
    """Counts the points passed, and does something when one is hit.

    Args:
        home: Only files below it count.
        hit: Which point; None counts alone.
        act: What is done there.
        lasts: Whether it is done at everything written from there on.
        torn: Which share of a file is there when a flush is hit; None all of it.
    """

    def __init__(
        self,
        home: Path,
        hit: Hit | None = None,
        act: Callable[[], None] = kill,
        *,
        lasts: bool = False,
        torn: float | None = None,
    ) -> None:
        self.passed: Counter[Point] = Counter()
        self._home, self._hit, self._act, self._lasts, self._torn = home, hit, act, lasts, torn
        self._is_hit = False
        self._flush = os.fsync

    def watch(self) -> None:
        """Put the hooks in place, for the rest of this process."""
        sys.addaudithook(self._audit)
        os.fsync = self._fsync
        for owner, name, phase in (
            (overedit.editing.trajectory.editor, "apply_update", "editing"),
            (TransformersEngine, "swap", "swapping"),
            (TransformersEngine, "generate", "scoring"),
            (TransformersEngine, "score", "scoring"),
            (TransformersEngine, "token_nlls", "scoring"),
            (overedit.tasks.evaluation.evaluator, "measure_capability", "scoring"),
        ):
            setattr(owner, name, self._wrapped(getattr(owner, name), Point(phase, name)))
        overedit.editing.trajectory.checkpoint.save_file = self._save_file

    def _pass(self, point: Point, tear: Callable[[], None] = lambda: None) -> None:
        self.passed[point] += 1
        wanted = self._hit == (point, self.passed[point])
        if wanted or (self._is_hit and self._lasts and point.operation in WRITING):
            self._is_hit = True
            tear()
            self._act()

    def _pass_file(self, path: Path, operation: str, tear: Callable[[], None] = lambda: None) -> None:
        if path.is_relative_to(self._home) and path != self._home:
            self._pass(Point(PLACES[path.relative_to(self._home).parts[0]], operation), tear)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        operation = FILE_OPERATIONS.get(event)
        if operation is None or not isinstance(arguments[0], str | Path):
            return
        if operation != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self._pass_file(Path(arguments[0]), operation)

    def _fsync(self, descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()

        def tear() -> None:
            if self._torn is not None and stat.S_ISREG(path.stat().st_mode):
                os.truncate(path, int(path.stat().st_size * self._torn))

        self._pass_file(path, "flush", tear)
        self._flush(descriptor)

    def _wrapped(self, function: Callable[..., Any], point: Point) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self._pass(point)
            return function(*arguments, **named)

        return wrapped

    def _save_file(self, tensors: Any, path: Path) -> None:
        safetensors.torch.save_file(tensors, path)

        def tear() -> None:
            os.truncate(path, path.stat().st_size // 2)

        try:
            self._pass_file(path, "tensors", tear)
        except OSError as error:  # as the library says it
            raise safetensors.SafetensorError(f"Error while serializing: I/O error: {error}") from error
