"""Writes trajectories as offline runs of Weights & Biases: configuration, metrics by edit count, and the report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from overedit.tasks.export.rows import TrackedRun

_STEP = "edit_count"
_DONE = "overedit.done"  # in the folder of a run that is whole


def write_wandb(runs: Sequence[TrackedRun], report: Path | None, *, project: str, home: Path) -> Iterator[str]:
    """Write trajectories that are not there yet, and say where each is; `wandb sync FOLDER` sends one to a server.

    Args:
        runs: The trajectories.
        report: The report page, if there is one.
        project: The name of W&B's project.
        home: The folder of `warehouse/`; the runs are written to `wandb/` in it.

    Raises:
        ImportError: W&B is not installed.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it reports its errors to its makers
    import wandb

    try:
        for run in runs:
            there = next((home / "wandb").glob(f"offline-run-*-{run.id}/{_DONE}"), None)
            if there is None:
                yield f"{run.name}: written to {_write(run, report, project=project, home=home)}"
            else:
                yield f"{run.name}: is in {there.parent} already"
    finally:
        wandb.teardown()  # or its service process stays


def _write(run: TrackedRun, report: Path | None, *, project: str, home: Path) -> Path:
    """Write one trajectory -> the folder of the offline run."""
    import wandb

    settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True)
    tracked = wandb.init(
        id=run.id,
        name=run.name,
        project=project,
        config=run.parameters | run.tags,
        group=run.tags["overedit.run"],
        dir=str(home),
        mode="offline",
        settings=settings,
    )
    folder = Path(tracked.dir).parent
    tracked.define_metric("*", step_metric=_STEP)
    for count, numbers in sorted(run.metrics.items()):
        tracked.log({_STEP: count} | numbers)
    if report is not None:
        tracked.log({"report": wandb.Html(report.read_text(), inject=False)})
    tracked.finish(exit_code=1 if run.failed else 0)
    (folder / _DONE).touch()
    return folder
