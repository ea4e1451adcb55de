"""The lock of a run in an object store: one holder, also across machines, and a way out when the holder is dead."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import pytest

from overedit.tasks.runs.run_lock import check_run_is_free, run_lock, unlock, workers
from overedit.tasks.storage import store_lock as module
from overedit.tasks.storage.stores import open_store
from overedit.tasks.storage.working_copy import is_there, local_home, url_of
from overedit.tasks.system.locks import HeldError


@pytest.fixture
def other(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The working copy of the same home on another machine."""
    monkeypatch.setenv("OVEREDIT_CACHE", str(tmp_path / "other-cache"))
    return local_home(str(url_of(home)))


def test_one_machine_at_a_time(home: Path, other: Path) -> None:
    with run_lock(home / "runs" / "r"):
        assert workers(home).keys() == {"r"}
        for attempt in (
            lambda: check_run_is_free(other / "runs" / "r"),
            lambda: run_lock(other / "runs" / "r").__enter__(),
        ):
            with pytest.raises(HeldError, match=f"run 'r' is being worked on by process {os.getpid()} on .* unlock r"):
                attempt()
    assert not is_there(home / "runs" / "r" / "lock")
    with run_lock(other / "runs" / "r") as had_to_wait:
        assert not had_to_wait


def killed(home: Path) -> None:
    """Leave the lock of a process that was killed."""
    held = run_lock(home / "runs" / "r")
    held.__enter__()
    content = module.read(home / "runs" / "r" / "lock")
    held.__exit__(None, None, None)
    files, place = open_store(str(url_of(home)))
    files.pipe_file(f"{place}/runs/r/lock", content)


def test_the_same_machine_takes_over_the_lock_of_a_dead_process(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    killed(home)
    check_run_is_free(home / "runs" / "r")
    with caplog.at_level(logging.WARNING), run_lock(home / "runs" / "r"):
        assert "took over the lock of a dead process of this machine" in caplog.text
    assert not is_there(home / "runs" / "r" / "lock")


def test_another_machine_needs_unlock(home: Path, other: Path) -> None:
    killed(home)
    with pytest.raises(HeldError, match="overedit unlock r --home memory://"):
        check_run_is_free(other / "runs" / "r")
    assert unlock(other, "r").startswith(f"process {os.getpid()} on ")
    with run_lock(other / "runs" / "r"):
        pass
    with pytest.raises(ValueError, match="nobody works on run 'r' in memory://"):
        unlock(other, "r")


def test_who_lost_the_lock_does_not_remove_that_of_another(home: Path, other: Path) -> None:
    with run_lock(home / "runs" / "r"):
        unlock(other, "r")
        new = run_lock(other / "runs" / "r")
        new.__enter__()
    assert is_there(home / "runs" / "r" / "lock")
    new.__exit__(None, None, None)


def test_waiting_for_another_machine(home: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LOOKS", 0.01)
    holds, ends = threading.Event(), threading.Event()

    def work() -> None:
        with run_lock(home / "runs" / "r"):
            holds.set()
            ends.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    assert holds.wait(60)
    threading.Timer(0.05, ends.set).start()
    with run_lock(other / "runs" / "r", wait=True) as had_to_wait:
        assert had_to_wait
    thread.join()


def test_a_folder_needs_no_unlock(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder, whose locks end with their processes"):
        unlock(tmp_path, "r")
