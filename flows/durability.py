"""Do edits last? Each operation of `after` on each trajectory's checkpoint, and all probes once more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch

from overedit.editing.trajectory.checkpoint import read_checkpoint
from overedit.flows.plan import Plan, Rounds
from overedit.flows.trajectories import Measure, TrajectoryState, with_engine
from overedit.tasks.durability.derive import Derived, Settings, Step
from overedit.tasks.durability.options import Operation
from overedit.tasks.durability.task import derive
from overedit.tasks.engine.lazy import LazyEngine
from overedit.tasks.evaluation.measured import MeasuredCheckpoint
from overedit.tasks.evaluation.options import MeasureOptions
from overedit.tasks.execution.scheduler import WorkerLostError, failure_text
from overedit.tasks.runs.derived import DerivedPoint, derived_folder, store_derived
from overedit.tasks.system.task_runs import device_tags, in_task


class Derivation(NamedTuple):
    """One operation on one checkpoint of a trajectory."""

    state: TrajectoryState
    edit_count: int
    operation: Operation
    step: Step


def measure_durability(plan: Plan, states: Sequence[TrajectoryState], rounds: Rounds, engine: LazyEngine) -> None:
    """Make and measure the checkpoints of `after`; a failure is an error of its trajectory and ends nothing else.

    Args:
        plan: The run.
        states: Its trajectories, edited and measured.
        rounds: The edit counts that were measured, as the pristine model was asked about them.
        engine: Answers.
    """
    wanted = [derivation for state in states for derivation in derivations(plan, state)]
    if not wanted:
        return
    if torch.cuda.is_available():
        engine.close()  # the next steps need its memory
    arguments = ([one.step for one in wanted], settings_of(plan), plan.sources, plan.run.name)
    found: Derived = in_task(derive, *arguments, name="one more step after the edits", tags=device_tags())
    for one in wanted:
        error = found.errors.get(one.step.folder) or measure_derived(
            plan, one, found, rounds, with_engine(plan, engine)
        )
        one.state.errors += [error] if error else []


def settings_of(plan: Plan) -> Settings:
    """What determines the checkpoints of `after`, besides the steps themselves."""
    return Settings(plan.model, plan.config.after_finetune, plan.texts)


def chosen_counts(at: Literal["last"] | tuple[int, ...], measured: Sequence[int]) -> list[int]:
    """The edit counts of `after_at` among those that were measured, in whatever order a search measured them."""
    return sorted(measured)[-1:] if at == "last" else [count for count in at if count in measured]


def derivations(plan: Plan, state: TrajectoryState) -> Iterator[Derivation]:
    """The operations on a trajectory's checkpoints: none where it failed, or where its weights are not finite."""
    if state.errors:
        return
    at, trajectory = plan.config.after_at, state.trajectory
    for count in chosen_counts(at, state.measured):
        origin = read_checkpoint(plan.folder_of(trajectory, count))
        for operation in plan.config.operations if origin.record.finite else ():
            folder = derived_folder(plan.checkpoints_folder(trajectory), operation.name, count)
            yield Derivation(state, count, operation, Step(origin, operation, folder))


def measure_derived(plan: Plan, one: Derivation, found: Derived, rounds: Rounds, measure: Measure) -> str | None:
    """Store and measure a checkpoint, in a task run of its name; the error message, or None."""
    before = plan.measured(one.state.trajectory, one.edit_count, rounds)
    point = DerivedPoint(**dict(before.point), after=one.operation.name)
    store_derived(point, found.checkpoints[one.step.folder])
    measured = before.at(point, one.step.folder)
    name = f"measure {point.in_words}"
    try:
        measure(measured, _options(plan, before), name)
    except WorkerLostError:
        raise
    except (RuntimeError, MemoryError) as error:
        return f"{name}: {failure_text(error)}"
    return None


def _options(plan: Plan, before: MeasuredCheckpoint) -> MeasureOptions:
    """General benchmarks run exactly where they were run on the edited model, so that both have the same items."""
    options, point = plan.measure_options(), before.point
    has_capability = bool(point.run.warehouse.rows("capability", point.partition))
    when = {"when": "every" if has_capability else "never"}
    return options.model_copy(update={"capability": options.capability.model_copy(update=when)})
