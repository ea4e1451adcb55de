"""A working copy and its store: what is put, in which order, and what another machine gets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from overedit.editing.trajectory.checkpoint import read_checkpoint
from overedit.tasks.storage.stores import open_store
from overedit.tasks.storage.working_copy import (
    local_home,
    pull,
    pull_file,
    read,
    replace_file,
    shown_path,
    sizes,
    sync,
    url_of,
)
from tests.support.checkpoints import write_made_up

PLACE = "runs/r/ft-m/order-0"


def written(home: Path, edit_count: int, value: float = 1.0) -> Path:
    """A checkpoint that is in the working copy and in the store."""
    folder = home / PLACE / f"{edit_count:08d}"
    write_made_up(folder, torch.full((4, 4), value), edit_count, state={})
    sync(folder)
    return folder


def test_a_path_says_its_url(home: Path, tmp_path: Path) -> None:
    assert url_of(home / PLACE) == f"memory://{tmp_path.name}/results/{PLACE}"
    assert local_home(home) == home, "a working copy is its own home"
    assert shown_path(tmp_path) == str(tmp_path)


def test_another_machine_gets_the_checkpoints(home: Path) -> None:
    before = {path.name: path.read_bytes() for path in written(home, 3).iterdir()}
    shutil.rmtree(home)
    pull(home / PLACE)
    assert {path.name: path.read_bytes() for path in (home / PLACE / "00000003").iterdir()} == before
    read_checkpoint(home / PLACE / "00000003").verify()


def test_a_checkpoint_that_is_there_is_not_copied_again(home: Path) -> None:
    weights = written(home, 3) / "weights.safetensors"
    node = weights.stat().st_ino
    pull(home / PLACE)
    assert weights.stat().st_ino == node
    write_made_up(weights.parent, torch.full((4, 4), 2.0), 3, state={})  # as another machine would
    pull(home / PLACE)
    assert read_checkpoint(weights.parent).tensors()["w"].eq(1.0).all(), "the store is the truth"


def test_what_the_store_does_not_have_is_removed(home: Path) -> None:
    folder = written(home, 3)
    write_made_up(home / PLACE / "00000004", torch.ones(4, 4), 4, state={})  # written, and killed before it was put
    pull(home / PLACE)
    assert [path.name for path in (home / PLACE).iterdir()] == ["00000003"]
    shutil.rmtree(folder)
    sync(folder)
    assert sizes(home) == {}


def test_the_record_is_put_last_and_removed_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader never takes the new tensors for the old ones, nor a part for the whole."""
    files, _ = open_store(str(url_of(home)))
    done: list[str] = []
    put, remove = type(files).put_file, type(files).rm_file
    monkeypatch.setattr(type(files), "put_file", lambda s, a, b: (done.append(f"put {Path(b).name}"), put(s, a, b)))
    monkeypatch.setattr(type(files), "rm_file", lambda s, a: (done.append(f"remove {Path(a).name}"), remove(s, a)))
    folder = written(home, 3)
    assert done == ["put costs.json", "put weights.safetensors", "put checkpoint.json"]
    done.clear()
    sync(folder)
    assert done == [], "nothing has changed"
    written(home, 3, value=2.0)
    assert (done[0], done[-1]) == ("remove checkpoint.json", "put checkpoint.json")
    done.clear()
    shutil.rmtree(folder)
    sync(folder)
    assert done[0] == "remove checkpoint.json"


def test_half_of_a_checkpoint_is_none(home: Path) -> None:
    folder = written(home, 3)
    files, place = open_store(str(url_of(folder)))
    files.rm_file(f"{place}/checkpoint.json")
    pull(home / PLACE)
    assert not folder.exists()


def test_a_file_is_in_the_store_once_it_is_whole(home: Path) -> None:
    path = home / "reports" / "r.html"
    with pytest.raises(KeyError), replace_file(path) as stream:
        stream.write(b"half")
        raise KeyError
    assert sizes(home) == {}
    with replace_file(path) as stream:
        stream.write(b"whole")
    assert read(path) == b"whole"
    path.write_bytes(b"other")
    pull_file(path)
    assert path.read_bytes() == b"whole"
    path.unlink()
    sync(path)
    path.write_bytes(b"left behind")
    pull_file(path)
    assert not path.exists()


def test_outside_a_working_copy_nothing_happens(tmp_path: Path) -> None:
    write_made_up(tmp_path / "00000003", torch.ones(4, 4), 3, state={})
    before = sorted(tmp_path.rglob("*"))
    sync(tmp_path / "00000003")
    pull(tmp_path)
    pull_file(tmp_path / "run.json")
    assert sorted(tmp_path.rglob("*")) == before
