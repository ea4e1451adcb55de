"""Parquet files that carry a checksum of themselves, so that a flipped bit anywhere in them is found.

The checksum is of the whole file with zeros in its place. It stands in the footer, among the schema's metadata, where
it is written as zeros first. Reading it takes no Parquet reader, so a damaged file is told without being parsed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

SEAL = {b"overedit.seal": b"overedit.sha256=" + b"0" * 64}
"""What the writer puts into the schema's metadata."""
_MARK = b"overedit.sha256="
_CHUNK = 1 << 20


def seal(stream: IO[bytes]) -> None:
    """Put the checksum into a file that was written with `SEAL`; the stream can be read, and stands anywhere."""
    place = _place(stream)
    assert place is not None, "the schema's metadata hold SEAL"
    digest = _digest(stream, place)
    stream.seek(place)
    stream.write(digest)


def is_whole(path: Path) -> bool:
    """Whether a file has the checksum that it was written with; one without any has not."""
    with path.open("rb") as stream:
        place = _place(stream)
        if place is None:
            return False
        stream.seek(place)
        return stream.read(64) == _digest(stream, place)


def _place(stream: IO[bytes]) -> int | None:
    """Where the checksum's digits stand; the footer's length is in the four bytes before the last four."""
    size = stream.seek(0, 2)
    stream.seek(max(size - 8, 0))
    footer = int.from_bytes(stream.read(4), "little") + 8
    start = max(size - footer, 0)
    stream.seek(start)
    found = stream.read().rfind(_MARK)
    place = start + found + len(_MARK)
    return place if found >= 0 and place + 64 <= size else None


def _digest(stream: IO[bytes], place: int) -> bytes:
    digest = hashlib.sha256()
    stream.seek(0)
    left = place
    while left:
        chunk = stream.read(min(left, _CHUNK))
        digest.update(chunk)
        left -= len(chunk)
    digest.update(b"0" * 64)
    stream.seek(place + 64)
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest().encode()
