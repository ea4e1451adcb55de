"""A full disk: seen ahead, or met in the middle; either way one clear error, and what was there is whole."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from overedit.editing.storage import disk_space
from overedit.editing.storage.atomic import remove_leftovers
from overedit.editing.storage.disk_space import NoSpaceError, check_space, raise_no_space
from overedit.editing.trajectory import checkpoint as checkpoints
from overedit.editing.trajectory.checkpoint import read_checkpoint
from tests.support.checkpoints import write_made_up
from tests.support.small_disk import small_disk

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", monkeypatch, megabytes=1) as folder:
        yield folder


def write(folder: Path, kilobytes: int) -> None:
    write_made_up(folder, torch.ones(kilobytes, 256), int(folder.name), state={})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_room_is_looked_for_before_anything_is_written(disk: Path) -> None:
    write(disk / "00000001", 600)
    with pytest.raises(
        NoSpaceError, match=r"00000002: this checkpoint will take 0\.6 MB, and 0\.\d MB are free; what "
    ):
        write(disk / "00000002", 600)
    assert names(disk) == ["00000001"]


def test_a_disk_that_is_full_in_the_middle_leaves_what_was_there(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(disk / "00000001", 600)
    monkeypatch.setattr(checkpoints, "check_space", lambda *_: None)
    for folder in ("00000001", "00000002"):  # in the place of one, and beside it
        with pytest.raises(NoSpaceError, match=f"{folder} could not be written: No space left on device; what was"):
            write(disk / folder, 700)
    assert names(disk) == ["00000001"]
    assert read_checkpoint(disk / "00000001").tensors()["w"].shape == (600, 256)
    write(disk / "00000002", 300)
    assert names(disk) == ["00000001", "00000002"]


def test_the_library_says_a_full_disk_in_its_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: Any) -> None:
        raise SafetensorError(f"Error while serializing: I/O error: No space left (os error {errno.ENOSPC})")

    monkeypatch.setattr(checkpoints, "save_file", no_room)
    with pytest.raises(NoSpaceError):
        write(tmp_path / "00000001", 1)
    assert names(tmp_path) == []


def test_space_is_asked_of_the_nearest_folder_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(
        "overedit.editing.storage.disk_space.shutil.disk_usage",
        lambda path: (asked.append(path), Usage(0, 0, disk_space.SLACK + 9))[1],
    )
    check_space(tmp_path / "runs" / "r", 9, "it")
    assert asked == [tmp_path]
    with pytest.raises(NoSpaceError, match="it will take"):
        check_space(tmp_path / "runs" / "r", 10, "it")


def test_only_a_full_disk_is_reported_as_full(tmp_path: Path) -> None:
    for number in (errno.ENOSPC, errno.EDQUOT):
        with pytest.raises(NoSpaceError, match="could not be written"), raise_no_space(tmp_path):
            raise OSError(number, os.strerror(number))
    with pytest.raises(PermissionError), raise_no_space(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_what_killed_writers_left_is_removed_and_what_living_ones_write_is_not(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    writer = f"~{os.uname().nodename}~{{}}~0123abcd.tmp"
    for process in (dead.pid, os.getppid(), os.getpid()):
        (tmp_path / f".00000001{writer.format(process)}" / "in").mkdir(parents=True)
        (tmp_path / "00000002").mkdir(exist_ok=True)
        (tmp_path / "00000002" / f".checkpoint.json{writer.format(process)}").touch()
    (tmp_path / ".other.tmp").touch()
    remove_leftovers(tmp_path)
    living = [writer.format(process) for process in (os.getppid(), os.getpid())]
    assert names(tmp_path) == sorted([*(f".00000001{end}" for end in living), ".other.tmp", "00000002"])
    assert names(tmp_path / "00000002") == sorted(f".checkpoint.json{end}" for end in living)


def test_a_writer_of_our_own_number_from_before_we_began_is_another_one(tmp_path: Path) -> None:
    """A container that is restarted gives its first process the number that the killed one had."""
    left = tmp_path / f".00000001~{os.uname().nodename}~{os.getpid()}~0123abcd.tmp"
    left.mkdir()
    os.utime(left, (0, time.time() - 3600))
    remove_leftovers(tmp_path)
    assert names(tmp_path) == []


def test_another_hosts_writer_is_dead_after_a_day(tmp_path: Path) -> None:
    for host, age in (("young", 3600), ("old", 2 * 86_400)):
        left = tmp_path / f".f~{host}~1~0123abcd.tmp"
        left.touch()
        os.utime(left, (0, time.time() - age))
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".f~young~1~0123abcd.tmp"]
