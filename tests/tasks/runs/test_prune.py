"""Pruning: which checkpoints lose their weights, and what stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from overedit.editing.trajectory.checkpoint import (
    PrunedCheckpointError,
    read_checkpoint,
    whole_checkpoints,
)
from overedit.editing.trajectory.records import Norms
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DatasetOptions
from overedit.tasks.editing_job.job import EditingJob, finished_checkpoints, run_editing_job
from overedit.tasks.models.export import export_checkpoint
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.runs.prune import Pruning, prune_run, worth_keeping
from overedit.tasks.runs.run_lock import run_lock
from overedit.tasks.runs.status import status_table
from overedit.tasks.runs.verify import verify
from overedit.tasks.system.locks import HeldError
from tests.support.checkpoints import write_made_up
from tests.support.stored_run import COUNTS, store_end, write_checkpoint


def weights(home: Path) -> list[int]:
    return sorted(int(path.parent.name) for path in home.glob("runs/r/*/*/*/weights.safetensors"))


def rows(home: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (home / "warehouse").rglob("*.parquet")}


def test_the_newest_and_the_neighbours_of_the_collapse_are_kept(home: Path) -> None:
    before, size = rows(home), sum(path.stat().st_size for path in home.rglob("*.safetensors"))
    (planned,) = prune_run(home, "r", dry_run=True)
    assert planned[:3] == ("ft-m/order-0", (2, 3, 5), (1, 4))
    assert weights(home) == list(COUNTS), "a dry run removes nothing"
    (done,) = prune_run(home, "r")
    assert done == planned
    assert weights(home) == [2, 3, 5]
    assert size - sum(path.stat().st_size for path in home.rglob("*.safetensors")) == done.num_bytes > 0
    assert rows(home) == before, "no row goes"
    assert prune_run(home, "r") == [Pruning("ft-m/order-0", (2, 3, 5), (), 0)], "a second time there is nothing to do"


@pytest.mark.parametrize(
    ("planned", "collapse_at", "kept"),
    [(5, None, (5,)), (9, None, (5,)), (5, 1, (1, 5)), (5, 5, (4, 5)), (5, 3, (2, 3, 5)), (4, None, (4, 5))],
)
def test_what_is_worth_keeping(planned: int, collapse_at: int | None, kept: tuple[int, ...]) -> None:
    assert worth_keeping(COUNTS, planned=planned, collapse_at=collapse_at) == kept
    assert worth_keeping([], planned=planned, collapse_at=collapse_at) == ()


def test_a_stop_in_the_middle_is_made_good_by_the_next_time(home: Path) -> None:
    """The record says that it is pruned before the weights go, so what is left over is found and removed."""
    folder = home / "runs" / "r" / "ft-m" / "order-0" / "00000001"
    content = (folder / "weights.safetensors").read_bytes()
    prune_run(home, "r")
    (folder / "weights.safetensors").write_bytes(content)
    assert prune_run(home, "r")[0].pruned == (1,)
    assert weights(home) == [2, 3, 5]


def test_a_pruned_checkpoint_says_so(home: Path, tmp_path: Path) -> None:
    prune_run(home, "r")
    folder = home / "runs" / "r" / "ft-m" / "order-0"
    pruned = read_checkpoint(folder / "00000001")
    assert pruned.record.tensors.keys() == {"w"}, "what was known of it stays"
    for read in (pruned.tensors, pruned.state):
        with pytest.raises(
            PrunedCheckpointError, match=r"00000001 was pruned.*remove .*order-0 to have it edited again"
        ):
            read()
    with pytest.raises(PrunedCheckpointError, match="was pruned"):
        export_checkpoint(folder / "00000001", tmp_path / "out")
    assert [c.record.edit_count for c in whole_checkpoints(folder, lambda _: "k")] == [5, 3, 2]
    assert [c.record.edit_count for c in whole_checkpoints(folder, lambda _: "k", or_pruned=True)] == [5, 4, 3, 2, 1]
    assert not [part for part in verify(home) if part.damages]
    assert next(iter(status_table(home).columns[3].cells)) == "(1) 2 3 (4) 5"


def test_what_has_not_ended_or_failed_is_not_pruned(home: Path) -> None:
    folder = home / "runs" / "r" / "ft-m" / "order-0"
    for dry_run in (True, False):
        with run_lock(home / "runs" / "r"), pytest.raises(HeldError, match="run 'r' is being worked on by process"):
            prune_run(home, "r", dry_run=dry_run)
    (folder / "line").mkdir()
    with pytest.raises(ValueError, match="has not ended"):
        prune_run(home, "r")
    (folder / "line").rmdir()
    write_checkpoint(home / "runs" / "r" / "rome" / "order-0", 1)
    with pytest.raises(ValueError, match="rome/order-0 has not ended; overedit run continues it"):
        prune_run(home, "r")
    assert weights(home) == sorted([1, *COUNTS])


def test_a_trajectory_that_failed_keeps_all(home: Path) -> None:
    store_end(home, "failed", "RuntimeError: out of memory")
    assert prune_run(home, "r")[0].pruned == ()
    assert weights(home) == list(COUNTS)


@pytest.mark.parametrize("name", ["none", "../r", "", "r/ft-m"])
def test_a_name_that_is_no_run(home: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"no run|not a run's name"):
        prune_run(home, name)


@pytest.fixture
def job(tiny_model: Path, tmp_path: Path) -> tuple[EditingJob, Any, Path]:
    rows = [{"prompt": f"The capital of Land{i} is", "target_new": f"City{i}"} for i in range(4)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    method = {"method": "ft_m", "site": "1.down_proj", "max_steps": 2}
    job = EditingJob.model_validate(
        {"model": ModelReference(str(tiny_model)), "method": method, "edit_counts": (1, 2, 4), "turn_size": 1}
    )
    return job, load_requests(DatasetOptions(name="file", path=path)).requests, tmp_path / "order-0"


def test_a_pruned_trajectory_is_complete_and_edited_again_where_it_must_be(
    job: tuple[EditingJob, Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from overedit.editing.trajectory.checkpoint import prune_checkpoint

    whole = run_editing_job(*job)
    checksums = [checkpoint.record.tensors for checkpoint in whole]
    prune_checkpoint(whole[0])
    with monkeypatch.context() as patch:
        patch.setattr(
            "overedit.tasks.editing_job.job.load_placed", lambda *_, **__: pytest.fail("nothing is edited again")
        )
        again = run_editing_job(*job)
    assert [checkpoint.record.pruned for checkpoint in again] == [True, False, False]
    assert [checkpoint.record.tensors for checkpoint in again] == checksums
    assert finished_checkpoints(job[0], job[0].checkpoint_keys(job[1]), job[2]) == again

    (whole[1].folder / "weights.safetensors").unlink()  # damaged: now the trajectory lacks one, and is edited again
    anew = run_editing_job(*job)
    assert [checkpoint.record.pruned for checkpoint in anew] == [False, False, False]
    assert [checkpoint.record.tensors for checkpoint in anew] == checksums
    assert len(anew[0].tensors()) == 1


def test_a_model_that_broke_can_be_read_and_pruned(tmp_path: Path) -> None:
    """Norms and logs that are no numbers are read back as what they are."""
    tensor = torch.tensor([float("nan"), float("inf")])
    log = [{"loss": float("inf"), "first": 1, "last": 1}]
    norms = {"w": Norms.of(tensor, torch.zeros(2))}
    write_made_up(tmp_path / "1", tensor, 1, {}, finite=False, log=log, norms=norms)
    found = read_checkpoint(tmp_path / "1").record
    assert found.norms["w"].weight != found.norms["w"].weight
    assert found.log[0]["loss"] == float("inf")
    assert len(read_checkpoint(tmp_path / "1").tensors()) == 1
