"""The scheduler with workers in this process: what waits for what, and what a lost worker costs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from overedit.editing.trajectory.interruption import StoppedError
from overedit.tasks.execution import scheduler
from overedit.tasks.execution.scheduler import (
    MOST_FAILED_STARTS,
    MOST_TRIES,
    FailedError,
    Scheduler,
    Unit,
    WorkerLostError,
    failure_text,
)


class FakeWorker:
    """A worker that writes down what happens to it."""

    def __init__(self, kind: str, number: int, *, starts: bool = True, ready: bool = True) -> None:
        self.kind, self.number, self.starts, self.ready = kind, number, starts, ready
        self.stop, self.ended = threading.Event(), threading.Event()

    def is_ready(self) -> bool:
        if not self.starts:
            raise WorkerLostError("no memory")
        return self.ready

    def ask_to_stop(self) -> None:
        self.stop.set()

    def end(self) -> None:
        self.ended.set()


class Fakes:
    """Starts workers, and has a list of what they did."""

    def __init__(self, **sizes: int) -> None:
        self.workers: list[FakeWorker] = []
        self.did: list[tuple[str, int]] = []
        self.bad_starts = 0
        self.scheduler = Scheduler(self.start, sizes)

    def start(self, kind: str) -> FakeWorker:
        starts = len(self.workers) >= self.bad_starts
        self.workers.append(FakeWorker(kind, len(self.workers), starts=starts))
        return self.workers[-1]

    def unit(
        self,
        name: str,
        *,
        kind: str = "edit",
        group: str = "",
        work: Callable[[FakeWorker], Any] = lambda _: None,
        then: Callable[[Any], Iterable[Unit[FakeWorker]]] = lambda _: (),
        failed: Callable[[str], Iterable[Unit[FakeWorker]]] = lambda _: (),
    ) -> Unit[FakeWorker]:
        def noted(worker: FakeWorker) -> Any:
            self.did.append((name, worker.number))
            return work(worker)

        return Unit(name, kind, group, noted, then, failed)


def test_measuring_goes_on_while_the_next_count_is_edited() -> None:
    """Each of the two waits for the other to have begun: one after another they would wait for ever."""
    fakes, both = Fakes(edit=1, measure=1), threading.Barrier(2, timeout=30)
    second = fakes.unit("edit to 2", work=lambda _: both.wait())
    measure = fakes.unit("measure at 1", kind="measure", work=lambda _: both.wait())
    fakes.scheduler.run([fakes.unit("edit to 1", then=lambda _: [second, measure])])
    assert next(name for name, _ in fakes.did) == "edit to 1"
    assert {name for name, _ in fakes.did} == {"edit to 1", "edit to 2", "measure at 1"}


def test_a_worker_prefers_the_group_of_its_last_unit() -> None:
    fakes = Fakes(edit=1)
    again = fakes.unit("a2", group="a")
    fakes.scheduler.run([fakes.unit("a1", group="a", then=lambda _: [again]), fakes.unit("b1", group="b")])
    assert [name for name, _ in fakes.did] == ["a1", "a2", "b1"]


def test_workers_of_a_kind_share_its_units_and_no_others() -> None:
    fakes, together = Fakes(edit=1, measure=3), threading.Barrier(3, timeout=30)
    fakes.scheduler.run([fakes.unit(f"m{i}", kind="measure", work=lambda _: together.wait()) for i in range(3)])
    assert len({number for _, number in fakes.did}) == 3
    assert {worker.kind for worker in fakes.workers} == {"measure"}, "no editor is started that nothing needs"


@pytest.mark.parametrize("answers_first", [False, True])
def test_a_lost_worker_costs_its_unit_alone(answers_first: bool) -> None:
    """The unit is repeated by a new worker, also where the old one had done it and only the answer was lost."""
    fakes, results = Fakes(edit=1), list[str]()
    done: list[str] = []

    def work(worker: FakeWorker) -> str:
        if answers_first:
            done.append("twice")
        if worker.number == 0:
            raise WorkerLostError("killed")
        return "result"

    def then(result: str) -> list[Unit[FakeWorker]]:
        results.append(result)
        return []

    fakes.scheduler.run([fakes.unit("a", work=work, then=then), fakes.unit("b")])
    assert results == ["result"]
    assert fakes.did == [("a", 0), ("a", 1), ("b", 1)]
    assert fakes.workers[0].ended.is_set()
    assert len(done) == 2 * answers_first


def test_a_unit_that_loses_every_worker_has_failed_and_the_others_go_on() -> None:
    fakes, why = Fakes(edit=1), list[str]()

    def lost(_: FakeWorker) -> None:
        raise WorkerLostError("killed")

    def failed(error: str) -> list[Unit[FakeWorker]]:
        why.append(error)
        return [fakes.unit("what it left")]

    fakes.scheduler.run([fakes.unit("a", work=lost, failed=failed), fakes.unit("b")])
    assert why == [f"WorkerLostError: killed ({MOST_TRIES} times)"]
    assert [name for name, _ in fakes.did] == ["a"] * MOST_TRIES + ["b", "what it left"]


def test_a_worker_that_cannot_start_is_started_again_a_few_times() -> None:
    fakes = Fakes(edit=1)
    fakes.bad_starts = MOST_FAILED_STARTS - 1
    fakes.scheduler.run([fakes.unit("a")])
    assert fakes.did == [("a", MOST_FAILED_STARTS - 1)]
    fakes = Fakes(edit=1)
    fakes.bad_starts = MOST_FAILED_STARTS
    with pytest.raises(RuntimeError, match=r"^no worker for edit can be started: no memory$"):
        fakes.scheduler.run([fakes.unit("a")])
    assert all(worker.ended.is_set() for worker in fakes.workers)


def test_workers_that_never_become_ready_do_not_hold_up_the_others() -> None:
    fakes = Fakes(edit=2)
    starts = fakes.scheduler.start

    def start(kind: str) -> FakeWorker:
        worker = starts(kind)
        worker.ready = worker.number == 1
        return worker

    fakes.scheduler.start = start
    fakes.scheduler.run([fakes.unit("a"), fakes.unit("b")])
    assert fakes.did == [("a", 1), ("b", 1)]


def test_an_idle_worker_makes_room_for_one_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two places one was lost, and the editor that has nothing to do is in the other."""
    monkeypatch.setattr(scheduler, "SECONDS_BEFORE_ROOM_IS_MADE", 0.0)
    fakes = Fakes(edit=1, measure=1)
    starts = fakes.scheduler.start

    def start(kind: str) -> FakeWorker:
        worker = starts(kind)
        monkeypatch.setattr(worker, "is_ready", lambda: kind == "edit" or fakes.workers[0].ended.is_set())
        return worker

    fakes.scheduler.start = start
    more = fakes.unit("edit to 2")
    measure = fakes.unit("measure at 1", kind="measure", then=lambda _: [more])
    fakes.scheduler.run([fakes.unit("edit to 1", then=lambda _: [measure])])
    assert fakes.did == [("edit to 1", 0), ("measure at 1", 1), ("edit to 2", 2)]


def test_an_error_of_a_unit_ends_the_others() -> None:
    fakes, begun = Fakes(edit=2), threading.Event()

    def waits(worker: FakeWorker) -> None:
        begun.set()
        worker.ended.wait(30)
        raise WorkerLostError("it was ended")

    def bad(_: FakeWorker) -> None:
        begun.wait(30)
        raise ValueError("no such file")

    with pytest.raises(ValueError, match="no such file"):
        fakes.scheduler.run([fakes.unit("a", work=waits), fakes.unit("b", work=bad)])


def test_a_stop_keeps_what_is_done_and_begins_nothing() -> None:
    fakes, begun, kept = Fakes(edit=2), threading.Event(), list[int]()

    def until_stopped(worker: FakeWorker) -> None:
        begun.set()
        worker.stop.wait(30)
        raise StoppedError("kept")

    def just_finished(worker: FakeWorker) -> int:
        worker.stop.wait(30)
        return 12

    def then(count: int) -> list[Unit[FakeWorker]]:
        kept.append(count)
        return [fakes.unit("never")]

    units = [fakes.unit("a", work=until_stopped), fakes.unit("b", work=just_finished, then=then), fakes.unit("c")]
    with pytest.raises(StoppedError, match="stopped after the turns that were going on, as asked"):
        fakes.scheduler.run(units, stop_asked=begun.is_set)
    assert kept == [12]
    assert not {"never", "c"} & {name for name, _ in fakes.did}
    assert all(worker.ended.is_set() for worker in fakes.workers)


def test_a_failure_has_the_same_words_wherever_it_happened() -> None:
    assert failure_text(RuntimeError("no\nsolution")) == "RuntimeError: no solution"
    assert failure_text(FailedError("RuntimeError: no solution")) == "RuntimeError: no solution"
