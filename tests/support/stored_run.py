"""A run on the disk, made by hand: checkpoints of one trajectory, and its rows in the warehouse."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import torch

from overedit.editing.trajectory.checkpoint import Checkpoint
from overedit.tasks.runs.run import Run, TrajectoryPoint
from tests.support.checkpoints import write_made_up

COUNTS = (1, 2, 3, 4, 5)


def write_checkpoint(folder: Path, edit_count: int, value: float = 1.0) -> Checkpoint:
    tensor = torch.full((4, 4), value)
    return write_made_up(folder / f"{edit_count:08d}", tensor, edit_count, state={"s": tensor})


def point_at(home: Path, edit_count: int) -> TrajectoryPoint:
    run = Run(name="r", home=home, model="m", dataset="d")
    return TrajectoryPoint(run=run, trajectory="ft-m", method="ft_m", order_seed=0, edit_count=edit_count)


def store_end(home: Path, status: str = "completed", error: str | None = None) -> None:
    row = {"label": "FT-M", "status": status, "error": error, "started_at": datetime(2026, 1, 1, tzinfo=UTC)}
    point_at(home, COUNTS[-1]).store("runs", [row], key="k")


def store_perplexity(home: Path, edit_count: int, nll: float) -> None:
    stored_at = point_at(home, edit_count)
    if edit_count == 0:
        stored_at = stored_at.model_copy(update={"trajectory": "base", "method": "none"})
    stored_at.store("perplexity", [{"corpus": "c", "text_id": 0, "nll": nll, "num_tokens": 1}], key="k")
