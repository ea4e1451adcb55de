"""Publishing a run to an experiment tracker: the choice of the tracker, and its extra."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from overedit.tasks.export.mlflow import write_mlflow
from overedit.tasks.export.rows import tracked_runs
from overedit.tasks.export.wandb import write_wandb
from overedit.tasks.runs.run import check_name
from overedit.tasks.storage.working_copy import pull_file, url_of
from overedit.tasks.warehouse.warehouse import Warehouse

_WRITERS = {"mlflow": write_mlflow, "wandb": write_wandb}


def publish(home: Path, run: str, *, to: str, project: str) -> Iterator[str]:
    """Write the trajectories of a run to an experiment tracker, and say of each where it is.

    A trajectory that is there already, with the same configuration and numbers, is not written again.

    Args:
        home: The folder of `warehouse/` and `reports/`. The tracker's files are written there; for a home in an object
            store they are written into the current folder.
        run: The run's name.
        to: `mlflow` or `wandb`.
        project: What the tracker calls the group of runs: MLflow's experiment, W&B's project.

    Raises:
        ValueError: An unknown run or tracker, or a tracker that is not installed.
    """
    if to not in _WRITERS:
        raise ValueError(f"to: {to!r} is unknown; choose one of {', '.join(_WRITERS)}")
    check_name(run)
    runs = tracked_runs(Warehouse(home / "warehouse"), run)
    report = home / "reports" / f"{run}.html"
    pull_file(report)
    folder = home if url_of(home) is None else Path()
    try:
        yield from _WRITERS[to](runs, report if report.is_file() else None, project=project, home=folder)
    except ModuleNotFoundError as error:
        if error.name != to:
            raise
        raise ValueError(f"to: {to!r} needs a package that is not installed: pip install 'overedit[{to}]'") from error
