"""Units of work on a remote worker, as Prefect tasks: their logs and progress are those of the task run.

They have no tag `gpu`: Ray assigns the GPUs, and Prefect's limit must not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from overedit.tasks.durability.derive import Derived, Settings, Step
from overedit.tasks.editing_job.job import EditingJob
from overedit.tasks.evaluation.measured import MeasuredCheckpoint
from overedit.tasks.evaluation.options import MeasureOptions
from overedit.tasks.execution.cluster import RemoteWorker
from overedit.tasks.execution.workers import Requests
from overedit.tasks.runs.run import FileLog, TrajectoryPoint
from overedit.tasks.system.task_runs import retried_stage, shown_in_flow, stage


@stage
def edit_remotely(
    worker: RemoteWorker,
    job: EditingJob,
    wanted: Requests,
    folder: Path,
    point: TrajectoryPoint,
    title: str,
    continues: bool,
) -> list[int]:
    """Edit a trajectory up to the job's last edit count; see `Editor.edit`."""
    found: list[int] = worker.call(
        "edit",
        job,
        wanted,
        folder,
        _sent(point),
        show=shown_in_flow(point.run.name, lines=True),
        title=title,
        continues=continues,
    )
    return found


@retried_stage
def measure_remotely(
    worker: RemoteWorker, measured: MeasuredCheckpoint, wanted: Requests, options: MeasureOptions
) -> None:
    """Measure a checkpoint; see `Measurer.measure`."""
    sent = {each.name: getattr(measured, each.name) for each in fields(measured)}
    del sent["requests"], sent["sources"]
    sent["point"] = _sent(measured.point)
    worker.call("measure", sent, wanted, options, show=shown_in_flow(measured.point.run.name, lines=True))


@stage
def derive_remotely(worker: RemoteWorker, steps: Sequence[Step], settings: Settings, run: str) -> Derived:
    """Make the checkpoints after one more step; see `Editor.derive`."""
    found: Derived = worker.call("derive", steps, settings, show=shown_in_flow(run, lines=True))
    return found


def _sent(point: TrajectoryPoint) -> TrajectoryPoint:
    """The point without the files that this process has made so far: a worker lists its own."""
    return point.model_copy(update={"run": replace(point.run, files=FileLog())})
