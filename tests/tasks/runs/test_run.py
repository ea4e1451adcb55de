from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from overedit.tasks.runs.run import Run, TrajectoryPoint
from overedit.tasks.runs.status import status_table
from overedit.tasks.system.locks import run_lock
from overedit.tasks.system.progress import shown


@pytest.fixture
def place(tmp_path: Path) -> TrajectoryPoint:
    run = Run(name="r", home=tmp_path, model="m", dataset="d")
    return TrajectoryPoint(run=run, trajectory="ft-m", method="ft_m", order_seed=0, edit_count=10)


def test_a_stage_stored_twice_leaves_one_row(place: TrajectoryPoint) -> None:
    for seconds in (1.0, 2.0):
        place.store_cost("swap", seconds, 1, key="k")
    place.store_cost("edit", 3.0, 10, key="k")
    rows = place.run.warehouse.query("SELECT stage, seconds, edit_count FROM costs ORDER BY stage").to_pylist()
    assert rows == [
        {"stage": "edit", "seconds": 3.0, "edit_count": 10},
        {"stage": "swap", "seconds": 2.0, "edit_count": 10},
    ]


def test_rows_are_held_under_their_key_only(place: TrajectoryPoint) -> None:
    row = {"corpus": "c", "text_id": 0, "nll": 1.0, "num_tokens": 2}
    assert not place.holds("perplexity", "k")
    place.store("perplexity", [row], key="k")
    assert place.holds("perplexity", "k")
    assert not place.holds("perplexity", "other")
    assert not place.model_copy(update={"edit_count": 11}).holds("perplexity", "k")


def cells(home: Path) -> list[tuple[str, ...]]:
    return list(zip(*(map(str, column.cells) for column in status_table(home).columns), strict=True))


def test_status_names_unfinished_trajectories(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "r" / "ft-m" / "order-0" / "00000010"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"x" * 2_000_000)
    (tmp_path / "runs" / "r" / "ft-m" / "order-x").mkdir()
    (folder.parent / "1-is-no-count").mkdir()
    assert cells(tmp_path)[0] == ("r", "ft-m", "0", "10", "not finished", "2.0", "")


def test_status_says_why_a_trajectory_failed_and_what_a_run_uses(place: TrajectoryPoint) -> None:
    home = place.run.home
    row = {
        "status": "failed",
        "error": "RuntimeError: no memory \x1b[2J",
        "started_at": datetime(2026, 1, 2, tzinfo=UTC),
    }
    place.store("runs", [row], key="k")
    place.run.report.parent.mkdir()
    place.run.report.write_bytes(b"x" * 3_000_000)
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


def test_progress_tells_rate_and_time_left(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, str]] = []
    monkeypatch.setattr("overedit.tasks.system.progress.SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("overedit.tasks.system.progress.SECONDS_BETWEEN_ARTIFACTS", 0.0)
    with caplog.at_level("INFO"), shown("Editing", "edits", artifact=lambda *what: told.append(what)) as progress:
        progress(25, 100)
        progress(100, 100)
    assert [percent for percent, _ in told] == [25.0, 100.0]
    assert "Editing: 25/100 edits" in caplog.messages[0]
    assert "edits/s" in caplog.messages[0]
    assert "s left" in caplog.messages[0]
