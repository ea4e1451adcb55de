"""Edits and measures the trajectories of a run on many devices.

The work is a graph: a trajectory is edited to one count after another, and each checkpoint is measured while the next
one is being edited; in a search, the next count depends on the trajectory's own rows alone. What has become possible
waits for the next free worker (`tasks/execution/scheduler.py`). Only this process decides and reads verdicts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from overedit.editing.trajectory.interruption import stop_on_signals
from overedit.flows.durability import Derivation, derivations, measure_derived, settings_of
from overedit.flows.plan import Plan, Rounds
from overedit.flows.trajectories import (
    Measure,
    TrajectoryState,
    counts_to_measure,
    failed_at,
    has_measured,
    job_to,
    measure_or_fail,
    measure_until_decided,
    task_name,
)
from overedit.tasks.durability.derive import Derived
from overedit.tasks.editing_job.job import remove_others
from overedit.tasks.engine.lazy import EngineStart
from overedit.tasks.execution.cluster import EDITOR, ENGINE, Cluster, RemoteWorker
from overedit.tasks.execution.options import RayExecution
from overedit.tasks.execution.scheduler import Scheduler, Unit, WorkerLostError, failure_text
from overedit.tasks.execution.task import derive_remotely, edit_remotely, measure_remotely
from overedit.tasks.execution.workers import Requests
from overedit.tasks.system.task_runs import in_task

Units: TypeAlias = list[Unit[RemoteWorker]]


def run_on_many_devices(plan: Plan, options: RayExecution) -> tuple[list[TrajectoryState], list[EngineStart]]:
    """Edit along every trajectory, measure every checkpoint, and those of `after`.

    Returns:
        What became of each trajectory, and the engines that were started.

    Raises:
        StoppedError: SIGTERM or Ctrl-C came; the editors have kept what they had, and the same call continues.
        ValueError: The cluster is too small.
        RuntimeError: There is no Ray, or its machines have other versions.
    """
    graph = Graph(plan)
    engine = (plan.model, plan.config.engine, plan.config.capability)
    with Cluster(options, engine=engine, files=plan.run.files) as cluster, stop_on_signals() as stop_asked:
        workers = Scheduler(cluster.start, cluster.sizes)
        try:
            workers.run(graph.first(), stop_asked=stop_asked)
            graph.finish()
            workers.run(graph.after(), stop_asked=stop_asked)
        finally:
            workers.end()
    return graph.states, cluster.starts


@dataclass(eq=False)
class _Line:
    """A trajectory, and how far its units have come."""

    state: TrajectoryState
    edited: set[int] = field(default_factory=set)
    """The edit counts up to which it was edited."""
    found: set[int] = field(default_factory=set)
    """The edit counts of its checkpoints so far."""
    waiting: list[int] = field(default_factory=list)
    """Those of checkpoints that cannot be measured yet."""
    measuring: int = 0
    """The number of its checkpoints that are being measured."""

    @property
    def group(self) -> str:
        return f"{self.state.trajectory.name}, order {self.state.trajectory.order_seed}"


@dataclass
class _Base:
    """The pristine model, asked what the checkpoints of one order of the requests are asked."""

    answered: int = 0
    """For so many of the rounds."""
    is_running: bool = False
    error: str | None = None


class Graph:
    """What has been done, and what is possible next.

    Args:
        plan: The run.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.states = [TrajectoryState(trajectory) for trajectory in plan.config.trajectories()]
        self.rounds: Rounds = ()
        self._lines = [_Line(state) for state in self.states]
        self._base = {seed: _Base() for seed in plan.config.order_seeds}
        self._in_order = plan.config.capability.when == "gated"  # each checkpoint is compared with the one before

    def first(self) -> Units:
        """The units with which a run begins."""
        edits = [unit for line in self._lines for unit in self._ask(line)]
        return [unit for seed in self._base for unit in self._ask_base(seed)] + edits

    def finish(self) -> None:
        """Bring the trajectories into the order of a local run; no more edit counts will be asked for."""
        for state in self.states:
            state.measured.sort()
            if not state.errors:
                remove_others(self._plan.checkpoints_folder(state.trajectory), state.measured)

    def _ask(self, line: _Line) -> Units:
        """Ask for a trajectory's next edit counts."""
        counts = counts_to_measure(self._plan, line.state)
        if not counts:
            return []
        line.state.asked |= set(counts)
        if new := set(counts).difference(*self.rounds):
            self.rounds += (tuple(sorted(new)),)
        return [*self._ask_base(line.state.trajectory.order_seed), self._edit(line)]

    def _ask_base(self, seed: int) -> Units:
        """Measure the pristine model, if it has not been asked all that the checkpoints will be asked."""
        base, rounds = self._base[seed], self.rounds
        if base.is_running or base.error or base.answered == len(rounds):
            return []
        base.is_running = True
        measured = self._plan.base(seed, rounds)

        def ended(error: str | None) -> Units:
            base.answered, base.is_running, base.error = len(rounds), False, error
            lines = [line for line in self._lines if line.state.trajectory.order_seed == seed]
            return [*self._ask_base(seed), *(unit for line in lines for unit in self._measure(line))]

        return [
            Unit(
                name=f"measure base, order {seed}",
                kind=ENGINE,
                group="base",
                work=lambda worker: measure_or_fail(self._plan, measured, self._remotely(worker)),
                then=ended,
                failed=ended,
            )
        ]

    def _edit(self, line: _Line) -> Unit[RemoteWorker]:
        """Edit a trajectory to the next count of a list, or to all counts that a search has asked for."""
        plan, state, trajectory = self._plan, line.state, line.state.trajectory
        is_list = plan.search is None
        left = sorted(state.asked - line.edited)
        job = job_to(state, left[0] if is_list else None)
        several = len(plan.config.order_seeds) > 1
        title = f"Editing with {trajectory.label}" + (f", order {trajectory.order_seed}" if several else "")
        continues = not is_list or len(left) > 1
        wanted, folder = self._requests(trajectory.order_seed), plan.checkpoints_folder(trajectory)
        arguments = (job, wanted, folder, plan.point(trajectory), title, continues)
        name = f"{task_name(state)}, to {left[0]:,}"

        def work(worker: RemoteWorker) -> list[int] | str:
            try:
                return list(in_task(edit_remotely, worker, *arguments, name=name))
            except WorkerLostError:
                raise
            except (RuntimeError, MemoryError) as error:
                return failure_text(error)

        def ended(found: list[int] | str) -> Units:
            if isinstance(found, str):
                found = failed_at(plan, state, found)
            line.edited |= set(job.edit_counts)
            line.waiting += [count for count in found if count not in line.found]
            line.found |= set(found)
            units = self._measure(line)
            if is_list and state.asked - line.edited and not state.errors:
                return [self._edit(line), *units]
            return units + ([] if is_list or units or line.waiting else self._ask(line))

        return Unit(name, EDITOR, line.group, work, ended, ended)

    def _measure(self, line: _Line) -> Units:
        """Measure a trajectory's checkpoints, as soon as the pristine model's answers are there."""
        state, base = line.state, self._base[line.state.trajectory.order_seed]
        if base.error is not None:
            if line.waiting:
                line.waiting.clear()
                state.errors += [base.error] if base.error not in state.errors else []
            return []
        unknown = {count for some in self.rounds[base.answered :] for count in some}
        units: Units = []
        while line.waiting and base.answered and line.waiting[0] not in unknown:
            if self._in_order and line.measuring:
                break
            units.append(self._measure_at(line, line.waiting.pop(0)))
            line.measuring += 1
        return units

    def _measure_at(self, line: _Line, count: int) -> Unit[RemoteWorker]:
        plan, state = self._plan, line.state
        measured = plan.measured(state.trajectory, count, self.rounds)

        def ended(error: str | None) -> Units:
            line.measuring -= 1
            has_measured(plan, state, count, error)
            units = self._measure(line)
            return units if plan.search is None or units or line.measuring or line.waiting else self._ask(line)

        return Unit(
            name=f"measure {measured.point.in_words}",
            kind=ENGINE,
            group=line.group,
            work=lambda worker: measure_until_decided(plan, measured, self._remotely(worker)),
            then=ended,
            failed=lambda error: ended(f"measure {measured.point.trajectory} at {count}: {error}"),
        )

    def after(self) -> Units:
        """The units that make the checkpoints of `after`."""
        of_states = [list(derivations(self._plan, state)) for state in self.states]
        return [self._derive(wanted) for wanted in of_states if wanted]

    def _derive(self, wanted: list[Derivation]) -> Unit[RemoteWorker]:
        """Make the checkpoints of a trajectory, and then measure them."""
        plan, state = self._plan, wanted[0].state
        name = f"one more step after the edits, {state.trajectory.label}, order {state.trajectory.order_seed}"
        arguments = ([one.step for one in wanted], settings_of(plan), plan.run.name)

        def ended(found: Derived) -> Units:
            state.errors += found.errors.values()
            return [self._measure_after(one, found) for one in wanted if one.step.folder not in found.errors]

        def failed(error: str) -> Units:
            state.errors.append(error)
            return []

        def work(worker: RemoteWorker) -> Derived:
            found: Derived = in_task(derive_remotely, worker, *arguments, name=name)
            return found

        return Unit(name, EDITOR, name, work, ended, failed)

    def _measure_after(self, one: Derivation, found: Derived) -> Unit[RemoteWorker]:
        def ended(error: str | None) -> Units:
            one.state.errors += [error] if error else []
            return []

        return Unit(
            name=f"measure {one.operation.name} at {one.edit_count}",
            kind=ENGINE,
            group=one.state.trajectory.name,
            work=lambda worker: measure_derived(self._plan, one, found, self.rounds, self._remotely(worker)),
            then=ended,
            failed=ended,
        )

    def _remotely(self, worker: RemoteWorker) -> Measure:
        """How a checkpoint is measured by a worker."""
        return lambda measured, options, name: in_task(
            measure_remotely, worker, measured, self._requests(measured.point.order_seed), options, name=name
        )

    def _requests(self, seed: int) -> Requests:
        planned = self._plan.planned(seed)
        dataset = self._plan.config.dataset.model_copy(update={"order_seed": seed})
        return Requests(dataset, len(planned), planned.digest)
