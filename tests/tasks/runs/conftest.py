"""Runs that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest

from overedit.tasks.runs.run import Run, TrajectoryPoint
from tests.support.stored_run import COUNTS, point_at, store_end, store_perplexity, write_checkpoint


@pytest.fixture
def point(tmp_path: Path) -> TrajectoryPoint:
    """A point of a run that has no rows yet."""
    run = Run(name="r", home=tmp_path, model="m", dataset="d")
    return TrajectoryPoint(run=run, trajectory="ft-m", method="ft_m", order_seed=0, edit_count=10)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A complete run of one trajectory that breaks at three edits."""
    for count in COUNTS:
        checkpoint = write_checkpoint(tmp_path / "runs" / "r" / "ft-m" / "order-0", count)
        rows = [{"parameter": "w", "sha256": checkpoint.record.tensors["w"].sha256}]
        point_at(tmp_path, count).store("checkpoints", rows, key="k")
    for count in (0, *COUNTS):
        store_perplexity(tmp_path, count, 9.0 if count >= 3 else 1.0)
    store_end(tmp_path)
    return tmp_path
