"""Edits and measures the trajectories of a run in this process, in rounds.

A list of edit counts is one round, a search has one for each. `many_devices.py` does the same without rounds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from overedit.editing.trajectory.checkpoint import read_checkpoint
from overedit.flows.config.models import Trajectory
from overedit.flows.plan import Plan, Rounds, given_counts
from overedit.tasks.editing_job.job import EditingJob, remove_others, written_checkpoints
from overedit.tasks.editing_job.task import edit
from overedit.tasks.engine.lazy import LazyEngine
from overedit.tasks.evaluation.measured import MeasuredCheckpoint
from overedit.tasks.evaluation.options import MeasureOptions
from overedit.tasks.evaluation.task import measure_checkpoint
from overedit.tasks.execution.scheduler import WorkerLostError, failure_text
from overedit.tasks.runs.records import store_checkpoints
from overedit.tasks.search.bracket import Verdict, bracket, next_count
from overedit.tasks.search.verdicts import read_verdicts, store_verdicts
from overedit.tasks.storage.working_copy import pull
from overedit.tasks.system.task_runs import device_tags, in_task

logger = logging.getLogger(__name__)

Measure: TypeAlias = Callable[[MeasuredCheckpoint, MeasureOptions, str], None]
"""Measures a checkpoint in a task run of a name, here or elsewhere."""


@dataclass
class TrajectoryState:
    """How far a trajectory has come."""

    trajectory: Trajectory
    asked: set[int] = field(default_factory=set)
    """The edit counts that were asked for."""
    measured: list[int] = field(default_factory=list)
    """Those of the measured checkpoints: fewer where the weights are no longer finite."""
    broken: set[int] = field(default_factory=set)
    """Those of checkpoints whose weights are not finite."""
    errors: list[str] = field(default_factory=list)

    @property
    def error(self) -> str | None:
        """Why it failed; None if it did not."""
        return "; ".join(self.errors) or None


def run_trajectories(plan: Plan, engine: LazyEngine) -> tuple[list[TrajectoryState], Rounds]:
    """Edit along every trajectory and measure every checkpoint, until no further edit count is asked for.

    Returns:
        What became of each trajectory, and the edit counts that were measured.
    """
    states = [TrajectoryState(trajectory) for trajectory in plan.config.trajectories()]
    rounds: Rounds = ()
    measure = with_engine(plan, engine)
    active = states
    while due := {state.trajectory: asked for state in active if (asked := counts_to_measure(plan, state))}:
        new = {count for asked in due.values() for count in asked}.difference(*rounds)
        rounds += (tuple(sorted(new)),) if new else ()
        if torch.cuda.is_available():
            engine.close()  # the next edits need its memory
        active = [state for state in active if state.trajectory in due]
        for state in active:
            state.asked |= set(due[state.trajectory])
        edited = edit_all(plan, active)
        base = {
            seed: measure_or_fail(plan, plan.base(seed, rounds), measure)
            for seed in dict.fromkeys(state.trajectory.order_seed for state in active)
        }
        for state, counts in zip(active, edited, strict=True):
            measure_trajectory(plan, state, counts, rounds, measure, base[state.trajectory.order_seed])
    for state in states:
        if not state.errors:
            remove_others(plan.checkpoints_folder(state.trajectory), state.measured)
    return states, rounds


def with_engine(plan: Plan, engine: LazyEngine) -> Measure:
    """How a checkpoint is measured in this process."""
    return lambda measured, options, name: in_task(
        measure_checkpoint, measured, options, engine, plan.loader, name=name
    )


def counts_to_measure(plan: Plan, state: TrajectoryState) -> tuple[int, ...]:
    """The edit counts to measure next; a search decides by the stored rows of those that are measured."""
    if state.errors:
        return ()
    if plan.search is None:
        return () if state.asked else given_counts(plan.config)
    point = plan.point(state.trajectory)
    verdicts = read_verdicts(point, plan.search, measured=state.measured, broken=state.broken)
    store_verdicts(point, plan.search, verdicts)
    for definition, of_counts in verdicts.items():
        if (count := next_count(plan.search, of_counts)) is not None:
            logger.info("%s", _state_in_words(state, definition, of_counts, count))
            return (count,)
    return ()


def _state_in_words(state: TrajectoryState, definition: str, verdicts: dict[int, Verdict], count: int) -> str:
    found = bracket(verdicts)
    end = "no collapse yet" if found.collapse_at is None else f"collapsed at {found.collapse_at:,}"
    name = f"{state.trajectory.label}, order {state.trajectory.order_seed}"
    return f"{name}: good at {found.last_good:,} edits, {end} ({definition}); next {count:,}"


def edit_all(plan: Plan, states: Sequence[TrajectoryState]) -> list[list[int]]:
    """Edit along trajectories, one after another; the edit counts of each one's new checkpoints."""
    return [edit_or_fail(plan, state) for state in states]


def edit_or_fail(plan: Plan, state: TrajectoryState) -> list[int]:
    """Edit along a trajectory; running out of memory, or a singular system, is a result and does not end the run.

    Args:
        plan: The run.
        state: The trajectory, to be edited up to the edit counts that were asked for; an error is added to it.

    Returns:
        The edit counts of its checkpoints that are not measured, up to the failure if there was one.
    """
    trajectory = state.trajectory
    job = job_to(state)
    folder, requests = plan.checkpoints_folder(trajectory), plan.planned(trajectory.order_seed)
    arguments = (job, requests, folder, plan.point(trajectory), trajectory.label, plan.sources, plan.search is not None)
    try:
        found = in_task(edit, *arguments, name=task_name(state), tags=device_tags())
    except (RuntimeError, MemoryError) as error:
        found = failed_at(plan, state, failure_text(error))
    return [count for count in found if count not in state.measured]


def job_to(state: TrajectoryState, last: int | None = None) -> EditingJob:
    """The editing job of a trajectory up to an edit count; up to all that were asked for by default."""
    counts = tuple(sorted(count for count in state.asked if last is None or count <= last))
    return state.trajectory.job.model_copy(update={"edit_counts": counts})


def task_name(state: TrajectoryState) -> str:
    """The name of the task run that edits."""
    return f"edit {state.trajectory.label}, order {state.trajectory.order_seed}"


def failed_at(plan: Plan, state: TrajectoryState, error: str) -> list[int]:
    """Add the error of an editing job to a trajectory; the edit counts of the checkpoints that it left."""
    trajectory = state.trajectory
    state.errors.append(error)
    left = written_checkpoints(job_to(state), plan.planned(trajectory.order_seed), plan.checkpoints_folder(trajectory))
    return store_checkpoints(plan.point(trajectory), left)


def measure_trajectory(
    plan: Plan,
    state: TrajectoryState,
    counts: Sequence[int],
    rounds: Rounds,
    measure: Measure,
    base_error: str | None,
) -> None:
    """Measure a trajectory's new checkpoints; without the pristine model's answers there is nothing to compare with."""
    if base_error is not None:
        state.errors.append(base_error)
        return
    for count in counts:
        error = measure_until_decided(plan, plan.measured(state.trajectory, count, rounds), measure)
        has_measured(plan, state, count, error)


def has_measured(plan: Plan, state: TrajectoryState, count: int, error: str | None) -> None:
    """Note that a trajectory's checkpoint was measured, or why it could not be."""
    state.errors += [error] if error else []
    state.measured.append(count)
    folder = plan.folder_of(state.trajectory, count)
    pull(folder)  # where another machine made it
    if not read_checkpoint(folder).record.finite:
        state.broken.add(count)


def measure_until_decided(plan: Plan, measured: MeasuredCheckpoint, measure: Measure) -> str | None:
    """Measure a checkpoint; in a search with more and more items, until they decide or there are no more.

    Returns:
        The error message, or None.
    """
    most = plan.config.capability.most_items
    limits = [most] if plan.search is None else plan.search.item_limits(most)
    for limit in limits:
        error = measure_or_fail(plan, measured, measure, limit=limit)
        if error is not None or plan.search is None or limit == limits[-1]:
            return error
        count = measured.point.edit_count
        verdicts = read_verdicts(measured.point, plan.search, measured=[count])
        if not any(of_counts[count].sure == "undecided" for of_counts in verdicts.values() if count in of_counts):
            return None
    return None


def measure_or_fail(
    plan: Plan, measured: MeasuredCheckpoint, measure: Measure, *, limit: int | None = None
) -> str | None:
    """Measure one checkpoint, in a task run of its name; a failing engine does not end the run.

    Args:
        plan: The run.
        measured: The checkpoint.
        measure: How.
        limit: The most items of each capability task; the configuration's by default.

    Returns:
        The error message, or None; rows that were measured before the failure are stored.
    """
    name = f"measure {measured.point.trajectory} at {measured.point.edit_count}"
    try:
        measure(measured, plan.measure_options(limit), name)
    except WorkerLostError:
        raise
    except (RuntimeError, MemoryError) as error:
        return f"{name}: {failure_text(error)}"
    return None
