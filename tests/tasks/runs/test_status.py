"""The table of `overedit status`."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from overedit.tasks.runs.run import TrajectoryPoint
from overedit.tasks.runs.run_lock import run_lock
from overedit.tasks.runs.status import status_table


def cells(home: Path) -> list[tuple[str, ...]]:
    return list(zip(*(map(str, column.cells) for column in status_table(home).columns), strict=True))


def test_status_names_unfinished_trajectories(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "r" / "ft-m" / "order-0" / "00000010"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"x" * 2_000_000)
    (tmp_path / "runs" / "r" / "ft-m" / "order-x").mkdir()
    (folder.parent / "1-is-no-count").mkdir()
    assert cells(tmp_path)[0] == ("r", "ft-m", "0", "10", "not finished", "2.0", "")


def test_status_says_why_a_trajectory_failed_and_what_a_run_uses(point: TrajectoryPoint) -> None:
    home = point.run.home
    row = {
        "status": "failed",
        "error": "RuntimeError: no memory \x1b[2J",
        "started_at": datetime(2026, 1, 2, tzinfo=UTC),
    }
    point.store("runs", [row], key="k")
    point.run.report.parent.mkdir()
    point.run.report.write_bytes(b"x" * 3_000_000)
    failed, whole = cells(home)
    assert failed == ("r", "ft-m", "0", "", "failed", "0.0", "RuntimeError: no memory \\u001b[2J"), "nothing on disk"
    assert whole[:2] == ("r", "all, with rows and report")
    assert whole[5] == "3.0"


def test_status_says_who_works_on_a_run(tmp_path: Path) -> None:
    (tmp_path / "runs" / "r" / "lock").parent.mkdir(parents=True)
    (tmp_path / "runs" / "r" / "lock").write_text("process 1 on nowhere\n")  # left by a killed one
    assert cells(tmp_path) == []
    with run_lock(tmp_path / "runs" / "r"):
        ((run, _, _, _, status, _, who),) = cells(tmp_path)
    assert (run, status) == ("r", "running") and f"process {os.getpid()} on" in who
    assert cells(tmp_path) == []
