"""Scanning with one method, as a Prefect task."""

from __future__ import annotations

from collections.abc import Sequence

from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.runs.run import TrajectoryPoint
from overedit.tasks.scan.scan import ScanJob, run_scan
from overedit.tasks.system.task_runs import shown_in_flow, stage


@stage
def scan(job: ScanJob, requests: RequestStore, texts: Sequence[str], point: TrajectoryPoint, label: str) -> None:
    """Edit with each request alone, and store a row for each.

    Args:
        job: Model and method.
        requests: Which are scanned, in their order.
        texts: On which perplexity is measured.
        point: Under which the rows are stored.
        label: What the progress calls the method.
    """
    run_scan(job, requests, texts, point, label=label, show=shown_in_flow(point.run.name))
