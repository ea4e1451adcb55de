"""Gives units of work to workers that may die: a lost worker costs its unfinished unit, which another one repeats.

A unit must be repeatable from its files. The scheduler knows neither Ray nor what the units do: a worker is whatever
`start` returns, and a unit's function is called with it in a thread of its own.
"""

from __future__ import annotations

import contextvars
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from overedit.editing.trajectory.interruption import StoppedError, never
from overedit.tasks.system.untrusted import one_line

logger = logging.getLogger(__name__)

MOST_TRIES = 3
"""Times that a unit is given to a worker, if it loses its worker each time: it may be what ends them."""
MOST_FAILED_STARTS = 3
"""Starts of a worker that may fail, one after another, before its place stays empty."""
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BEFORE_ROOM_IS_MADE = 60.0


class WorkerLostError(RuntimeError):
    """A worker's process or machine is gone, or it never started."""


class FailedError(RuntimeError):
    """A unit failed on its worker; the message is the error's type and text, as `one_line` gives them."""


def failure_text(error: RuntimeError | MemoryError) -> str:
    """A failure on one line, the same wherever it happened."""
    return str(error) if isinstance(error, FailedError) else one_line(error)


class Worker(Protocol):
    """A process that does one unit at a time; it may run on another machine."""

    def is_ready(self) -> bool:
        """Whether it has started.

        Raises:
            WorkerLostError: It never will.
        """

    def ask_to_stop(self) -> None:
        """Ask it to keep what it has and to end its unit with `StoppedError`; returns at once."""

    def end(self) -> None:
        """End it now; what it was doing ends with `WorkerLostError`."""


W = TypeVar("W", bound=Worker)


@dataclass(frozen=True, eq=False)
class Unit(Generic[W]):
    """A piece of work that can be repeated."""

    name: str
    kind: str
    """The kind of worker that does it."""
    group: str
    """A worker prefers units of the group of its last one."""
    work: Callable[[W], Any]
    """Does it, in a thread; what it raises ends the run, but for `WorkerLostError`."""
    then: Callable[[Any], Iterable[Unit[W]]]
    """Takes the result and says what has become possible; called in the scheduler's own thread."""
    failed: Callable[[str], Iterable[Unit[W]]]
    """The same where it has lost `MOST_TRIES` workers; gets the reason."""
    tries: int = 0


@dataclass(eq=False)
class _Place(Generic[W]):
    """A place for a worker: when one is lost, another takes it."""

    kind: str
    worker: W
    started: bool = False
    failed_starts: int = 0
    group: str = ""
    """The group of its last unit."""


@dataclass
class Scheduler(Generic[W]):
    """The workers, and the loop that gives them units.

    Args:
        start: Starts a worker of a kind without waiting for it.
        sizes: Kind -> the number of its workers.
    """

    start: Callable[[str], W]
    sizes: Mapping[str, int]
    _places: list[_Place[W]] = field(default_factory=list)
    _waiting: list[Unit[W]] = field(default_factory=list)
    _running: dict[Future[Any], tuple[Unit[W], _Place[W]]] = field(default_factory=dict)
    _given_up: list[str] = field(default_factory=list)
    """The kinds of the places that stay empty."""
    _lacking_since: float | None = None
    """Since when there is a kind that is needed and of which no worker has started."""

    def run(self, units: Iterable[Unit[W]], *, stop_asked: Callable[[], bool] = never) -> None:
        """Do the units, and those that become possible by them, until none is left.

        Args:
            units: What is possible now.
            stop_asked: Whether the run is to stop; units that can keep what they have are waited for.

        Raises:
            StoppedError: A stop was asked for.
            RuntimeError: No worker of a kind that is needed can be started.
            Exception: A unit raised it.
        """
        self._waiting = list(units)
        with ThreadPoolExecutor(max_workers=sum(self.sizes.values())) as threads:
            try:
                while (self._waiting or self._running) and not stop_asked():
                    self._begin_units(threads)
                    self._look()
                if stop_asked():
                    self._stop()
            except BaseException:
                self.end()  # the threads wait for the workers
                raise

    def end(self) -> None:
        """End all workers."""
        for place in self._places:
            place.worker.end()
        self._places.clear()
        self._running.clear()

    def _begin_units(self, threads: ThreadPoolExecutor) -> None:
        """Give the units that wait to the workers that are free."""
        self._fill_places()
        busy = [place for _, place in self._running.values()]
        for place in [place for place in self._places if place not in busy]:
            offered = [unit for unit in self._waiting if unit.kind == place.kind]
            if offered and self._is_ready(place):
                unit = next((unit for unit in offered if unit.group == place.group), offered[0])
                self._waiting.remove(unit)
                place.group = unit.group
                context = contextvars.copy_context()  # Prefect's flow run, for the task run of the unit
                self._running[threads.submit(context.run, unit.work, place.worker)] = unit, place

    def _fill_places(self) -> None:
        """Start the workers of the kinds that are needed; if none of a kind can start, end one of another for it.

        After the loss of a machine the others may be full of workers that wait for those that have no place.
        """
        kinds = sorted({unit.kind for unit in self._waiting})
        for kind in kinds:
            missing = self.sizes[kind] - self._given_up.count(kind) - sum(place.kind == kind for place in self._places)
            self._places += [_Place(kind, self.start(kind)) for _ in range(missing)]
        started = {place.kind for place in self._places if place.started}
        if started.issuperset(kinds):
            self._lacking_since = None
            return
        self._lacking_since = self._lacking_since or time.monotonic()
        busy = [place for _, place in self._running.values()]
        idle = [place for place in self._places if place.started and place not in busy and place.kind not in kinds]
        if idle and time.monotonic() - self._lacking_since >= SECONDS_BEFORE_ROOM_IS_MADE:
            logger.warning("no worker for %s has started: one that has nothing to do makes room", ", ".join(kinds))
            idle[0].worker.end()
            self._places.remove(idle[0])
            self._lacking_since = None

    def _look(self) -> None:
        """Wait a moment, and take what has ended."""
        if not self._running:
            return time.sleep(SECONDS_BETWEEN_LOOKS)
        for future in wait(self._running, SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED).done:
            unit, place = self._running.pop(future)
            try:
                result = future.result()
            except WorkerLostError as error:
                self._lost(unit, place, error)
            else:
                self._waiting += unit.then(result)

    def _lost(self, unit: Unit[W], place: _Place[W], error: WorkerLostError) -> None:
        """Replace a worker, and repeat its unit first of all."""
        place.worker.end()
        place.worker, place.started = self.start(place.kind), False
        tries = unit.tries + 1
        if tries < MOST_TRIES:
            logger.warning("%s: %s; it is done again by another worker", unit.name, error)
            self._waiting.insert(0, replace(unit, tries=tries))
        else:
            self._waiting += unit.failed(f"{one_line(error)} ({tries} times)")

    def _is_ready(self, place: _Place[W]) -> bool:
        """Whether a worker has started; one that cannot be is replaced a few times."""
        try:
            is_ready = place.started or place.worker.is_ready()
        except WorkerLostError as error:
            place.failed_starts += 1
            place.worker.end()
            if place.failed_starts < MOST_FAILED_STARTS:
                logger.warning("a worker could not be started and is started again: %s", error)
                place.worker = self.start(place.kind)
                return False
            self._places.remove(place)
            self._given_up.append(place.kind)
            if not any(other.kind == place.kind for other in self._places):
                raise RuntimeError(f"no worker for {place.kind} can be started: {error}") from error
            return False
        if is_ready:
            place.started, place.failed_starts = True, 0
        return is_ready

    def _stop(self) -> None:
        """Let the units that can keep what they have do so, and end.

        Raises:
            StoppedError: They have ended.
        """
        for _, place in self._running.values():
            place.worker.ask_to_stop()
        for future, (unit, _) in self._running.items():
            with suppress(StoppedError, WorkerLostError):
                unit.then(future.result())
        raise StoppedError("stopped after the turns that were going on, as asked")
