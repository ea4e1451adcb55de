"""Files and folders that appear whole or not at all, and the removal of what killed writers left.

A writer works on a temporary neighbour, `.<name>~<host>~<process>~<random>.tmp`, which takes the place of the real one
by a rename. The name says who writes it, so that others can tell what a dead writer left.
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
    """A stream to the file's new content; it takes the file's place, on disk, when the block ends without an error.

    Readers see the old content or the new one, never a part. Folders are made as needed.

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
    """A new folder beside another one; it takes that one's place, on disk, when the block ends without an error.

    Raises:
        NoSpaceError: The disk is full; what was there before is untouched.
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
    """Remove the temporary files and folders, at any depth, of dead writers (by process on this host, else by age)."""
    for path in sorted(folder.rglob(".*~*~*~*.tmp")):
        _, host, process, _ = path.name.rsplit("~", 3)
        try:
            modified = path.stat().st_mtime
        except FileNotFoundError:  # its writer, or the removal of its folder, has just ended it
            continue
        if time.time() - modified > _SECONDS_A_DAY or (host == _host() and _writer_is_dead(int(process), modified)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Whether this machine has a process of that number, whoever's it is."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _writer_is_dead(process: int, modified: float) -> bool:
    """A process of our own number that wrote before we began is another one, as in a container that was restarted."""
    return modified < _IMPORTED_AT if process == os.getpid() else not is_alive(process)


def _temporary(path: Path) -> Path:
    return path.parent / f".{path.name}~{_host()}~{os.getpid()}~{uuid.uuid4().hex[:8]}.tmp"


def _host() -> str:
    return os.uname().nodename


def _flush(path: Path) -> None:
    """Have a file, or a folder's list of names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
