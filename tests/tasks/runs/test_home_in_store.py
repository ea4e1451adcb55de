"""Status, verification and pruning of a run in an object store: the same answers as in a folder."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console

from overedit.tasks.runs.instances import begin
from overedit.tasks.runs.prune import prune_run
from overedit.tasks.runs.prune_instances import prune_instances
from overedit.tasks.runs.status import status_table
from overedit.tasks.runs.verify import verify
from overedit.tasks.storage.stores import open_store
from overedit.tasks.storage.working_copy import local_home, pull, sizes, sync, url_of
from tests.support.stored_run import COUNTS, point_at, store_end, store_perplexity, write_checkpoint

PLACE = "runs/r/ft-m/order-0"


class Homes(NamedTuple):
    """The same run in a folder and in a store."""

    folder: Path
    store: Path


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Homes:
    monkeypatch.setenv("OVEREDIT_CACHE", str(tmp_path / "cache"))
    found = Homes(tmp_path / "home", local_home(f"memory://{tmp_path.name}/x"))
    for home in found:
        for count in COUNTS:
            checkpoint = write_checkpoint(home / PLACE, count)
            sync(checkpoint.folder)
            rows = [{"parameter": "w", "sha256": checkpoint.record.tensors["w"].sha256}]
            point_at(home, count).store("checkpoints", rows, key="k")
        for count in (0, *COUNTS):
            store_perplexity(home, count, 9.0 if count >= 3 else 1.0)
        store_end(home)
    shutil.rmtree(found.store)  # this machine has seen nothing of it
    return found


def shown(home: Path) -> str:
    console = Console(width=200, record=True)
    with console.capture() as capture:
        console.print(status_table(home))
    return capture.get()


def test_the_status_is_the_same(homes: Homes) -> None:
    assert shown(homes.store) == shown(homes.folder)
    assert "1 2 3 4 5" in shown(homes.store)
    assert not homes.store.exists(), "nothing was downloaded"


def test_verification_is_the_same(homes: Homes) -> None:
    assert verify(homes.store) == verify(homes.folder)
    assert verify(homes.store, "r") == verify(homes.folder, "r")
    (part,) = verify(homes.folder, str(url_of(homes.store / PLACE)))
    assert (part.num_checked, part.damages) == (5, ())


@pytest.mark.parametrize("path", [f"{PLACE}/00000002/weights.safetensors", "warehouse/perplexity/"])
def test_a_corrupted_object_is_found(homes: Homes, path: str) -> None:
    files, place = open_store(str(url_of(homes.store)))
    path = next(name for name in sizes(homes.store) if name.startswith(path))
    content = bytearray(files.cat_file(f"{place}/{path}"))
    content[-20] ^= 1
    files.pipe_file(f"{place}/{path}", bytes(content))
    (damage,) = [damage for part in verify(homes.store) for damage in part.damages]
    assert str(damage.path.relative_to(homes.store)) in (path, str(Path(path).parent))
    assert "overedit-" not in damage.what, "the name of a temporary folder"


def test_pruning_is_the_same(homes: Homes) -> None:
    before = sizes(homes.store)
    assert prune_run(homes.store, "r", dry_run=True) == prune_run(homes.folder, "r", dry_run=True)
    assert sizes(homes.store) == before
    pull(homes.store / PLACE)
    assert prune_run(homes.store, "r") == prune_run(homes.folder, "r")
    there = {name for name in sizes(homes.store) if name.startswith(PLACE)}
    assert there == {str(p.relative_to(homes.folder)) for p in (homes.folder / PLACE).rglob("*") if p.is_file()}
    assert shown(homes.store) == shown(homes.folder)
    pull(homes.store / PLACE)
    left = {str(p.relative_to(homes.store)) for p in (homes.store / PLACE).rglob("*") if p.is_file()}
    assert left == there, "the working copy loses the weights too"
    assert verify(homes.store) == verify(homes.folder)
    (again,) = prune_run(homes.store, "r")
    assert again.pruned == ()


def test_pruning_instances(homes: Homes) -> None:
    for key in ("old", "new"):
        time.sleep(1.1)  # instances are named by the second, and the newest name is kept
        for home in homes:
            run = point_at(home, 1).run
            instance = begin(run, config="{}", model_digest="", requests_digest="", requested_by="", flow_run_id=None)
            rows = [{"corpus": "c", "text_id": 0, "nll": 1.0, "num_tokens": 1}]
            run.store("perplexity", rows_of(home, rows), partition=point_at(home, 1).partition, key=key)
            instance.store_files(all_done=False)
    removed = [prune_instances(home, "r", keep=1) for home in homes]
    assert removed[0].num_files == removed[1].num_files == 2
    history = [name for name in sizes(homes.store) if "/history/" in name]
    assert len(history) == len(list((homes.folder / "warehouse" / "history").rglob("*.parquet")))


def rows_of(home: Path, rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [point_at(home, 1).identity | row for row in rows]
