"""Parquet files that carry their own checksum, so that a flipped bit anywhere in them is found.

The checksum is the SHA-256 of the whole file, with zeros in the place of its 64 digits. It is part of the footer's
schema metadata, where the writer first puts the zeros. Reading it needs no Parquet reader, so damage is found without
parsing a damaged file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO

SEAL = {b"overedit.seal": b"overedit.sha256=" + b"0" * 64}
"""The writer's entry in the schema metadata."""
_MARK = b"overedit.sha256="
_CHUNK = 1 << 20


def seal(stream: IO[bytes]) -> None:
    """Write the checksum into a file whose schema metadata hold `SEAL`; the stream is readable, at any position."""
    offset = _digits_offset(stream)
    assert offset is not None, "the schema metadata hold SEAL"
    digest = _digest(stream, offset)
    stream.seek(offset)
    stream.write(digest)


def is_whole(path: Path) -> bool:
    """Whether a file still has the checksum that it was written with; False for a file without a checksum."""
    with path.open("rb") as stream:
        offset = _digits_offset(stream)
        if offset is None:
            return False
        stream.seek(offset)
        return stream.read(64) == _digest(stream, offset)


def stored_checksum(path: Path) -> str:
    """The checksum that a file was written with, read from its footer and not compared; empty for a file without."""
    with path.open("rb") as stream:
        offset = _digits_offset(stream)
        if offset is None:
            return ""
        stream.seek(offset)
        return stream.read(64).decode(errors="replace")


def _digits_offset(stream: IO[bytes]) -> int | None:
    """The offset of the checksum's digits in the file; the four bytes before the last four hold the footer's length."""
    size = stream.seek(0, 2)
    stream.seek(max(size - 8, 0))
    footer = int.from_bytes(stream.read(4), "little") + 8
    start = max(size - footer, 0)
    stream.seek(start)
    found = stream.read().rfind(_MARK)
    offset = start + found + len(_MARK)
    return offset if found >= 0 and offset + 64 <= size else None


def _digest(stream: IO[bytes], offset: int) -> bytes:
    digest = hashlib.sha256()
    stream.seek(0)
    left = offset
    while left:
        chunk = stream.read(min(left, _CHUNK))
        digest.update(chunk)
        left -= len(chunk)
    digest.update(b"0" * 64)
    stream.seek(offset + 64)
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest().encode()
