"""Shows progress: as a bar on a terminal, as a log line every few seconds elsewhere, and as an artifact in the UI."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from overedit.editing.methods.base import Progress as Advance
from overedit.editing.methods.base import silent

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_ARTIFACTS = 2.0
SECONDS_BETWEEN_REPORTS = 0.5

ShowProgress = Callable[[str, str], AbstractContextManager[Advance]]
"""(title, unit) -> a context manager that shows the progress of a piece of work, like `shown`."""


Item = TypeVar("Item")

ITEMS_PER_REPORT = 1000


def counted(items: Iterable[Item], progress: Advance, total: int) -> Iterator[Item]:
    """Yield the items, and report progress every `ITEMS_PER_REPORT` of them and at the end."""
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        if done % ITEMS_PER_REPORT == 0:
            progress(done, max(total, done))
    progress(done, max(total, done))


def now_and_then(advance: Advance) -> Advance:
    """Twice a second is enough for people, and a method may count thousands of steps in that time."""
    last = time.monotonic() - SECONDS_BETWEEN_REPORTS

    def some(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= SECONDS_BETWEEN_REPORTS:
            last = time.monotonic()
            advance(done, total)

    return some


@contextmanager
def unseen(title: str, unit: str) -> Iterator[Advance]:
    """Show no progress; the default where nobody watches."""
    yield silent


@contextmanager
def shown(
    title: str, unit: str, *, artifact: Callable[[float, str], None] | None = None, lines: bool = False
) -> Iterator[Advance]:
    """Show the progress, rate and remaining time of a piece of work while the block runs.

    Args:
        title: Name of the work, e.g. "Editing with UltraEdit".
        unit: What is counted, plural, e.g. "edits".
        artifact: Called with (percent, text) every two seconds at most.
        lines: Log lines on a terminal too, where several bars would overwrite each other.

    Yields:
        A function to call with (done, total).
    """
    console = Console(stderr=True)
    watch = _Watch(title, unit, artifact)
    if lines or not console.is_terminal:
        yield watch.line
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(title, total=None, rate="")

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, rate=watch.rate(done))
            watch.publish(done, total)

        yield advance


class _Watch:
    """Computes rate and remaining time, and limits how often they are reported."""

    def __init__(self, title: str, unit: str, artifact: Callable[[float, str], None] | None) -> None:
        self.title, self.unit, self.artifact = title, unit, artifact
        self.begun = self.last_line = self.last_artifact = time.monotonic()

    def rate(self, done: int) -> str:
        return f"{done / max(time.monotonic() - self.begun, 1e-9):,.1f} {self.unit}/s"

    def text(self, done: int, total: int) -> str:
        elapsed = time.monotonic() - self.begun
        left = elapsed * (total - done) / done if done else float("inf")
        time_left = f"{left:,.0f} s left" if done else "time left unknown"
        return f"{self.title}: {done:,}/{total:,} {self.unit}, {self.rate(done)}, {time_left}"

    def line(self, done: int, total: int) -> None:
        if time.monotonic() - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            logger.info(self.text(done, total))
        self.publish(done, total)

    def publish(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self.artifact and (now - self.last_artifact >= SECONDS_BETWEEN_ARTIFACTS or done == total):
            self.last_artifact = now
            self.artifact(100.0 * done / max(total, 1), self.text(done, total))
