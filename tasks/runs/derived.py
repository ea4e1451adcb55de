"""A checkpoint after one more step (quantized, merged, trained further): its rows, and its folder.

Its rows are in tables of their own, `outcomes_after` and so on, which have the columns of a checkpoint's tables and the
column `after`. So no view over the edited models can hold one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from overedit.editing.trajectory.checkpoint import Checkpoint, checkpoint_folder
from overedit.tasks.runs.records import tensor_rows
from overedit.tasks.runs.run import TrajectoryPoint
from overedit.tasks.warehouse.tables import after_table

FOLDER = "after"
"""The folder of a trajectory's derived checkpoints, below its own."""


class DerivedPoint(TrajectoryPoint):
    """A trajectory at an edit count, after one more step."""

    after: str
    """The step, as in the configuration."""

    @property
    def partition(self) -> dict[str, Any]:
        """The partition of the tables `*_after` that holds the rows of this point."""
        return super().partition | {"after": self.after}

    @property
    def in_words(self) -> str:
        """The point in messages."""
        return f"{super().in_words} after {self.after}"

    def table(self, table: str) -> str:
        """The table that holds this point's rows of a kind."""
        return after_table(table)


def derived_folder(trajectory: Path, after: str, edit_count: int) -> Path:
    """The folder of a derived checkpoint: `after/merge_base-0.5/00000100` below the trajectory's own."""
    return checkpoint_folder(trajectory / FOLDER / folder_of_step(after), edit_count)


def folder_of_step(after: str) -> str:
    """A step as the name of a folder."""
    return after.replace(":", "-")


def derived_folders(trajectory: Path) -> Iterator[Path]:
    """The folders that hold a trajectory's derived checkpoints, one for each step."""
    return (path for path in sorted((trajectory / FOLDER).glob("*")) if path.is_dir() and not path.name.startswith("."))


def store_derived(point: DerivedPoint, checkpoint: Checkpoint) -> None:
    """Store the tensors and the cost of a derived checkpoint as rows, unless they are stored already."""
    key, costs = checkpoint.record.key, checkpoint.costs
    if point.reuse("checkpoints", key) and point.reuse("costs", key, part=FOLDER):
        return
    point.store("checkpoints", tensor_rows(checkpoint), key=key)
    more: dict[str, Any] = {"peak_memory_bytes": costs.peak_memory_bytes, "ended_at": costs.ended_at}
    point.store_cost(FOLDER, costs.seconds, 1, key=key, **more)
