"""Measuring the sites of one split, as a Prefect task."""

from __future__ import annotations

from overedit.tasks.evaluation.capability.task_loading import TaskLoader
from overedit.tasks.locate.sweep import Split, SweepJob, run_sweep
from overedit.tasks.runs.run import Run
from overedit.tasks.system.task_runs import shown_in_flow, stage


@stage
def sweep(job: SweepJob, split: Split, run: Run, label: str, loader: TaskLoader) -> None:
    """Edit at every site, and store its scores.

    Args:
        job: Model, method, sites and measures.
        split: The edits.
        run: The run of the rows.
        label: What the progress calls the method.
        loader: Keeps the general benchmarks' task objects between splits.
    """
    run_sweep(job, split, run, label=label, loader=loader, show=shown_in_flow(run.name))
