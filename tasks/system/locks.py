"""Locks between processes, for runs and for GPUs.

A lock is the operating system's (`flock`) on a file. The kernel releases it however its holder ends, kill -9 included;
the holder's description in the file is for people to read, and blocks nobody when it is stale.

On NFS, Linux turns `flock` into a lock of the server, so it works between machines too, except on a share mounted with
`local_lock=flock`, `local_lock=all` or `nolock`: there it works only between the processes of one machine.
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
_SECONDS_TO_WRITE, _NUM_LOOKS = 1.0, 20


class HeldError(RuntimeError):
    """Another process holds the lock; the same call can succeed later."""


@contextmanager
def file_lock(path: Path, what: str, *, wait: bool = False) -> Iterator[bool]:
    """Hold a lock while the block runs; its file exists as long.

    Args:
        path: The lock file; its folder is created.
        what: The name of the locked object in messages, e.g. "run 'demo'".
        wait: Wait until another holder has released it, and log the holder, instead of raising `HeldError`.

    Yields:
        Whether it had to wait for another holder.

    Raises:
        HeldError: Another process holds it, or another thread of this one.
        OSError: The file cannot be created, or its file system has no locks.
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
        # while it is held: a process that has opened the file sees that it is gone, and opens it again
        path.unlink(missing_ok=True)
        lock.release()


def check_free(path: Path, what: str) -> None:
    """Check that a lock is free, without creating its file.

    Raises:
        HeldError: Another process holds it.
    """
    if path.exists():
        with file_lock(path, what):
            pass


def holder(path: Path) -> str:
    """The holder of a lock, as described in its file."""
    for _ in range(_NUM_LOOKS):
        try:
            text = path.read_text(errors="replace")[:_MOST_SHOWN].strip()
        except FileNotFoundError:  # just released
            break
        if text:
            return printable(text)
        time.sleep(_SECONDS_TO_WRITE / _NUM_LOOKS)  # just acquired, and not written yet
    return "another process"


def write_holder(descriptor: int) -> None:
    """Write a description of this process into a lock file, replacing the previous holder's."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{this_process()}\n".encode(), 0)


def this_process() -> str:
    """This process in words, as the holder of a lock from now on."""
    return f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
