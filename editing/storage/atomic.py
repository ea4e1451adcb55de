"""Atomic writes of files and folders, and the removal of temporary files that killed writers left.

A writer fills a temporary neighbour, `.<name>~<host>~<process>~<random>.tmp`, and renames it to the final name. The
temporary name identifies the writer, so that others can recognise the leftovers of a dead one.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from overedit.editing.storage.disk_space import raise_no_space

_SECONDS_A_DAY = 86_400.0
_IMPORTED_AT = time.time()


@contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a stream for a file's new content, which replaces the file when the block ends without an error.

    Readers see the old content or the new one, never a part. Missing folders are created.

    Raises:
        NoSpaceError: The disk is full; the old content is untouched.
    """
    temporary = _temporary(path)
    try:
        with raise_no_space(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w+b") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Make a temporary folder, which replaces `folder` when the block ends without an error.

    Raises:
        NoSpaceError: The disk is full; an existing folder is untouched.
    """
    temporary = _temporary(folder)
    try:
        with raise_no_space(folder):
            temporary.mkdir(parents=True)
            yield temporary
            for path in (*temporary.iterdir(), temporary):
                _flush(path)
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
            _flush(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders of dead writers, at any depth (by process on this host, otherwise by age)."""
    for path in sorted(folder.rglob(".*~*~*~*.tmp")):
        _, host, process, _ = path.name.rsplit("~", 3)
        try:
            modified = path.stat().st_mtime
        except FileNotFoundError:  # its writer, or the removal of its folder, has just removed it
            continue
        if time.time() - modified > _SECONDS_A_DAY or (host == _host() and _writer_is_dead(int(process), modified)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Whether this machine has a process of that number, of any user."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _writer_is_dead(process: int, modified: float) -> bool:
    """Whether the writer has ended; one with our own number that wrote before we started was another process."""
    return modified < _IMPORTED_AT if process == os.getpid() else not is_alive(process)


def _temporary(path: Path) -> Path:
    return path.parent / f".{path.name}~{_host()}~{os.getpid()}~{uuid.uuid4().hex[:8]}.tmp"


def _host() -> str:
    return os.uname().nodename


def _flush(path: Path) -> None:
    """Flush a file, or a folder's directory entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
