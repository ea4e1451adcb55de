"""Locks between processes: who works on a run, and who holds a GPU.

A lock is the operating system's (`flock`) on a file. However its holder ends, kill -9 included, the kernel releases it;
what the file says of the holder is for people to read, and blocks nobody when it is stale.

On NFS, Linux turns `flock` into a lock of the server's, so it holds between machines too - but not where the share is
mounted with `local_lock=flock`, `local_lock=all` or `nolock`: there each machine excludes its own processes alone.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from overedit.tasks.system.untrusted import printable

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 0.5
_MOST_SHOWN = 200
_SECONDS_TO_WRITE, _LOOKS = 1.0, 20


class HeldError(RuntimeError):
    """Somebody else holds a lock. Nothing is wrong with what was asked for, and later it may be done."""


@contextmanager
def held(path: Path, what: str, *, wait: bool = False) -> Iterator[bool]:
    """Hold a lock while the block runs; its file is there for as long.

    Args:
        path: The lock's file; its folder is made.
        what: What a message calls it, e.g. "run 'demo'".
        wait: Wait for another holder, whom a line names, instead of giving up.

    Yields:
        Whether there was another holder to wait for.

    Raises:
        HeldError: Another process holds it, or another thread of this one.
        OSError: The file cannot be made, or its file system has no locks.
    """
    lock = FileLock(path, fallback_to_soft=False, on_acquired=write_holder)
    had_to_wait = False
    try:
        lock.acquire(blocking=False)
    except Timeout:
        message = f"{what} is being worked on by {holder(path)}"
        if not wait:
            raise HeldError(f"{message}; wait until it has ended, or stop it") from None
        logger.warning("%s; waiting until it has ended", message)
        lock.acquire(poll_interval=SECONDS_BETWEEN_LOOKS)
        had_to_wait = True
    try:
        yield had_to_wait
    finally:
        path.unlink(missing_ok=True)  # while it is held; whoever has opened it sees that it is gone, and looks again
        lock.release()


def check_free(path: Path, what: str) -> None:
    """Check that nobody holds a lock, and make nothing.

    Raises:
        HeldError: Somebody does.
    """
    if path.exists():
        with held(path, what):
            pass


@contextmanager
def run_lock(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Work on a run alone: nobody else edits, measures or prunes it while the block runs; see `held`.

    Args:
        folder: The run's own.
        wait: Wait for whoever works on it now.
    """
    with held(folder / "lock", _run(folder), wait=wait) as had_to_wait:
        yield had_to_wait


def check_run_is_free(folder: Path) -> None:
    """Check that nobody works on a run.

    Raises:
        HeldError: Somebody does.
    """
    check_free(folder / "lock", _run(folder))


def holder(path: Path) -> str:
    """Who holds a lock, as its file says."""
    for _ in range(_LOOKS):
        try:
            said = path.read_text(errors="replace")[:_MOST_SHOWN].strip()
        except FileNotFoundError:  # released in this moment
            break
        if said:
            return printable(said)
        time.sleep(_SECONDS_TO_WRITE / _LOOKS)  # taken in this moment, and not written yet
    return "another process"


def write_holder(descriptor: int) -> None:
    """Write this process into a lock's file, in the place of whoever held it before."""
    said = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, said.encode(), 0)


def _run(folder: Path) -> str:
    return f"run {folder.name!r}"
