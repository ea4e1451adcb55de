"""Editing one trajectory, as a Prefect task."""

from __future__ import annotations

from pathlib import Path

from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.editing_job.job import EditingJob, run_editing_job
from overedit.tasks.runs.records import store_checkpoints
from overedit.tasks.runs.run import TrajectoryPoint
from overedit.tasks.system.stage_key import SourceIndex
from overedit.tasks.system.task_runs import shown_in_flow, stage


@stage
def edit(
    job: EditingJob,
    requests: RequestStore,
    folder: Path,
    point: TrajectoryPoint,
    label: str,
    sources: SourceIndex,
    continues: bool = False,
) -> list[int]:
    """Edit to the last edit count, from the newest whole checkpoint on, and store what is known of each checkpoint.

    Args:
        job: What to do.
        requests: In the order of editing.
        folder: Where the checkpoints are written.
        point: Any point of the trajectory.
        label: What the progress calls the method.
        sources: Keeps parsed source files between stage keys.
        continues: Whether more edit counts may be asked for.

    Returns:
        The edit counts of the checkpoints.
    """
    title = f"Editing with {label}"
    show = shown_in_flow(point.run.name)
    checkpoints = run_editing_job(job, requests, folder, show=show, title=title, sources=sources, continues=continues)
    return store_checkpoints(point, checkpoints)
