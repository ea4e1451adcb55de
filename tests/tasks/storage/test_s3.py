"""Working copies and locks with s3fs and moto's server, beside the tests with a store in memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from overedit.editing.trajectory.checkpoint import read_checkpoint
from overedit.tasks.runs.run_lock import check_run_is_free, run_lock, workers
from overedit.tasks.storage.stores import check_reachable
from overedit.tasks.storage.working_copy import is_folder, is_there, local_home, pull, pull_file, sizes, sync, tags
from overedit.tasks.system.locks import HeldError
from tests.support.checkpoints import write_made_up
from tests.support.object_store import SECRET, keys, make_bucket, object_store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with object_store(tmp_path_factory.mktemp("moto") / "log.txt") as environment:
        make_bucket(environment, "bucket")
        yield environment


@pytest.fixture(autouse=True)
def _environment(store: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {**store, "OVEREDIT_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)


def test_a_checkpoint_goes_there_and_comes_back(store: dict[str, str]) -> None:
    home = local_home("s3://bucket/checkpoints")
    folder = home / "runs" / "r" / "t" / "order-0" / "00000003"
    assert not is_there(folder)
    write_made_up(folder, torch.ones(4, 4), 3, state={"s": torch.ones(2)})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    sync(folder)
    tag = tags(folder)
    sync(folder)
    assert tags(folder) == tag
    assert (
        is_folder(folder.parent) and not is_folder(folder / "checkpoint.json") and is_there(folder / "checkpoint.json")
    )
    shutil.rmtree(home)
    pull(folder.parent)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    write_made_up(folder, torch.zeros(4, 4), 3, state={})
    sync(folder)
    assert sizes(folder).keys() == before.keys() - {"state.safetensors"}
    assert read_checkpoint(folder).tensors().keys() and tags(folder) != tag
    shutil.rmtree(folder)
    sync(folder)
    assert keys(store, "bucket", "checkpoints") == []
    pull_file(folder)
    pull(folder)
    assert not folder.exists()


def test_one_process_at_a_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = local_home("s3://bucket/locks")
    monkeypatch.setenv("OVEREDIT_CACHE", str(tmp_path / "other"))
    other = local_home("s3://bucket/locks")
    with run_lock(home / "runs" / "r"):
        assert workers(other).keys() == {"r"}
        with pytest.raises(HeldError, match="overedit unlock r --home s3://bucket/locks"):
            check_run_is_free(other / "runs" / "r")
        with pytest.raises(HeldError), run_lock(other / "runs" / "r"):
            pass
    check_run_is_free(other / "runs" / "r")


def test_a_bucket_that_is_not_there() -> None:
    check_reachable("s3://bucket/new")
    with pytest.raises(OSError, match="s3://nowhere/x cannot be used: there is no such bucket"):
        check_reachable("s3://nowhere/x")


def test_wrong_credentials_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError, match="s3://bucket/x cannot be used: ") as refused:
        check_reachable("s3://bucket/x")
    assert SECRET not in str(refused.value)
    s3fs.S3FileSystem.clear_instance_cache()
