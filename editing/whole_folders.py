"""Folders that appear whole or not at all, and the removal of what killed writers left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from overedit.editing.disk_space import told_when_full


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """A folder beside another one; it takes that one's place, on disk, when the block ends without an error.

    Raises:
        NoSpaceError: The disk is full; what was there before is untouched.
    """
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with told_when_full(folder):
            beside.mkdir(parents=True)
            yield beside
            for path in (*beside.iterdir(), beside):
                flush(path)
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
            flush(folder.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def flush(path: Path) -> None:
    """Have a file, or a folder's list of names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed had not finished writing, at any depth."""
    for path in sorted(folder.rglob(".*.tmp")):
        process = path.name.split(".")[-2]
        if process.isdecimal() and (int(process) == os.getpid() or not is_alive(int(process))):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_alive(process: int) -> bool:
    """Whether this machine has a process of that number, whoever's it is."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
