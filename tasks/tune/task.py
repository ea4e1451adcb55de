"""Searching the settings of one method, as a Prefect task."""

from __future__ import annotations

from overedit.editing.trajectory.interruption import stop_on_signals
from overedit.tasks.system.task_runs import shown_in_flow, stage
from overedit.tasks.tune.bench import Bench
from overedit.tasks.tune.options import TuneJob
from overedit.tasks.tune.search import Place, Tuned, run_search


@stage
def tune(job: TuneJob, bench: Bench, place: Place) -> Tuned:
    """Search the settings of a method, and measure the best on test edits.

    Args:
        job: Method, ranges and budget.
        bench: Measures the trials; all methods of a run share it.
        place: Under which the rows are stored.
    """
    with stop_on_signals() as stop_asked:
        return run_search(job, bench, place, show=shown_in_flow(place.run.name), stop_asked=stop_asked)
