"""Local files that appear whole or not at all, and the removal of what killed writers left."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from overedit.editing.disk_space import told_when_full
from overedit.editing.whole_folders import is_alive

_SECONDS_A_DAY = 86_400.0


@contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """A stream to the file's new content; it takes the file's place, on disk, when the block ends without an error.

    Readers see the old content or the new one, never a part. Folders are made as needed.

    Raises:
        NoSpaceError: The disk is full; the old content is untouched.
    """
    temporary = path.parent / f".{path.name}~{socket.gethostname()}~{os.getpid()}~{uuid.uuid4().hex[:8]}.tmp"
    try:
        with told_when_full(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w+b") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files, at any depth, of writers that are dead (by process on this machine, else by age)."""
    for path in folder.rglob(".*~*~*~*.tmp"):
        _, host, process, _ = path.name.rsplit("~", 3)
        try:
            old = time.time() - path.stat().st_mtime > _SECONDS_A_DAY
        except FileNotFoundError:  # its writer has just ended
            continue
        if old or (host == socket.gethostname() and not is_alive(int(process))):
            path.unlink(missing_ok=True)
