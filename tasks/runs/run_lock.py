"""The lock of a run: one process edits, measures or prunes it at a time, on one machine or on many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from overedit.tasks.storage.store_lock import check_store_lock, holder_in_words, store_holder, store_lock
from overedit.tasks.storage.working_copy import remove, shown_path, sizes, url_of
from overedit.tasks.system.locks import HeldError, check_free, file_lock, holder

_FILE = "lock"


@contextmanager
def run_lock(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Lock a run: no other process edits, measures or prunes it while the block runs.

    See `file_lock`, and `store_lock` for a run in an object store.

    Args:
        folder: The run's folder.
        wait: Wait until another process has released it.
    """
    lock = file_lock if url_of(folder) is None else store_lock
    with lock(folder / _FILE, _run(folder), wait=wait) as had_to_wait:
        yield had_to_wait


def check_run_is_free(folder: Path) -> None:
    """Check that no process works on a run.

    Raises:
        HeldError: Another process does.
    """
    check = check_free if url_of(folder) is None else check_store_lock
    check(folder / _FILE, _run(folder))


def workers(home: Path) -> dict[str, str]:
    """Run -> the holder of its lock, in words; runs that nobody works on are left out."""
    if url_of(home) is not None:
        locks = [home / "runs" / path for path in sizes(home / "runs") if path.count("/") == 1]
        return {lock.parent.name: holder_in_words(lock) for lock in locks if lock.name == _FILE}
    found = {}
    for folder in (home / "runs").glob("*"):
        try:
            check_run_is_free(folder)
        except (HeldError, PermissionError):  # another user's lock cannot be tried; its owner may be at work
            found[folder.name] = holder(folder / _FILE)
    return found


def unlock(home: Path, run: str) -> str:
    """Remove the lock of a run in an object store, whose holder is dead.

    Returns:
        The holder, in words.

    Raises:
        ValueError: The home is a folder, where the system releases locks, or the run is not locked.
    """
    lock = home / "runs" / run / _FILE
    if url_of(home) is None:
        raise ValueError(f"home: {home} is a folder, whose locks end with their processes; there is nothing to remove")
    if store_holder(lock) is None:
        raise ValueError(f"name: nobody works on run {run!r} in {shown_path(home)}; there is no lock to remove")
    found = holder_in_words(lock)
    remove(lock)
    return found


def _run(folder: Path) -> str:
    return f"run {folder.name!r}"
