"""Room on the disk: looked for before it is needed, and missed in one clear error."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SLACK = 64 << 20
"""Bytes left for what is written beside tensors: records, rows, the report."""


class NoSpaceError(OSError):
    """The disk is full, or will be; what was written before is whole."""


def check_space(folder: Path, num_bytes: int, what: str) -> None:
    """Look whether there is room for what will be written.

    Args:
        folder: Where; it need not exist yet.
        num_bytes: How much, but for `SLACK`.
        what: What it is, for the message.

    Raises:
        NoSpaceError: There is not.
    """
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < num_bytes + SLACK:
        raise NoSpaceError(
            f"{folder}: {what} will take {_megabytes(num_bytes + SLACK)}, and {_megabytes(free)} are free; "
            "what was written before is whole"
        )


@contextmanager
def raise_no_space(path: Path) -> Iterator[None]:
    """Say which file could not be written where the disk is full; an error of writing itself does not.

    Raises:
        NoSpaceError: Nothing more can be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = "No space left on device" if error.errno == errno.ENOSPC else "Disk quota exceeded"
        raise NoSpaceError(f"{path} could not be written: {reason}; what was written before is whole") from error


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
