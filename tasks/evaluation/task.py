"""Measuring a checkpoint, as a Prefect task."""

from __future__ import annotations

from overedit.tasks.engine.lazy import LazyEngine
from overedit.tasks.evaluation.capability.task_loading import TaskLoader
from overedit.tasks.evaluation.evaluator import measure
from overedit.tasks.evaluation.measured import MeasuredCheckpoint
from overedit.tasks.evaluation.options import MeasureOptions
from overedit.tasks.system.task_runs import retried_stage, shown_in_flow


@retried_stage
def measure_checkpoint(
    measured: MeasuredCheckpoint, options: MeasureOptions, engine: LazyEngine, loader: TaskLoader
) -> None:
    """Ask every probe, the perplexity and the general benchmarks of one checkpoint, unless they are stored already."""
    measure(measured, options, engine=engine, show=shown_in_flow(measured.point.run.name), loader=loader)
