"""Writes trajectories to MLflow: a run each, with parameters, metrics by edit count, and the report as an artifact."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from overedit.tasks.export.rows import TrackedRun

Item = TypeVar("Item")

_ID = "overedit.id"
_LONGEST = 5000  # characters of a parameter or a tag that every store takes
_METRICS_AT_ONCE, _OTHERS_AT_ONCE = 1000, 100  # MLflow's limits of a request


def write_mlflow(runs: Sequence[TrackedRun], report: Path | None, *, project: str, home: Path) -> Iterator[str]:
    """Write trajectories that are not there yet, and say where each is.

    The store is MLFLOW_TRACKING_URI, or else `mlflow.db` in the home, with the artifacts in `mlartifacts/`.

    Args:
        runs: The trajectories.
        report: The report page, if there is one.
        project: The name of MLflow's experiment; it is made if it does not exist.
        home: The folder of `warehouse/`.

    Raises:
        ImportError: MLflow is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # else it reports its use to its makers
    import mlflow

    store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(home / 'mlflow.db').resolve()}"
    client = mlflow.MlflowClient(tracking_uri=store)
    found = client.get_experiment_by_name(project)
    artifacts = None if "MLFLOW_TRACKING_URI" in os.environ else (home / "mlartifacts").resolve().as_uri()
    experiment = client.create_experiment(project, artifacts) if found is None else found.experiment_id
    for run in runs:
        there = client.search_runs([experiment], filter_string=f"tags.`{_ID}` = '{run.id}'")
        if any(one.info.end_time for one in there):
            yield f"{run.name}: is in {store} already"
            continue
        for one in there:  # left by a process that was stopped
            client.delete_run(one.info.run_id)
        _write(client, experiment, run, report)
        yield f"{run.name}: written to {store}, experiment {project}"


def _write(client: Any, experiment: str, run: TrackedRun, report: Path | None) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    begun = int(run.started_at.timestamp() * 1000) if run.started_at else now
    made = client.create_run(experiment, start_time=begun, run_name=run.name, tags={_ID: run.id}).info.run_id
    metrics = [Metric(name, value, now, count) for count, at in run.metrics.items() for name, value in at.items()]
    for some in _groups(metrics, _METRICS_AT_ONCE):
        client.log_batch(made, metrics=some)
    for some in _groups([Param(key, str(value)[:_LONGEST]) for key, value in run.parameters.items()], _OTHERS_AT_ONCE):
        client.log_batch(made, params=some)
    for some in _groups([RunTag(key, value[:_LONGEST]) for key, value in run.tags.items()], _OTHERS_AT_ONCE):
        client.log_batch(made, tags=some)
    if report is not None:
        client.log_artifact(made, str(report))
    client.set_terminated(made, "FAILED" if run.failed else "FINISHED")


def _groups(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))
