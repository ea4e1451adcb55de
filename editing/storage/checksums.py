"""Checksums: JSON files that contain their own, so that a flipped bit is detected; digests of files and of values.

The checksum of a JSON file is its first key, `sha256`, on the line after the brace, and covers all other bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

_SEAL = re.compile(rb'\A\{\n "sha256": "([^"\n]*)",\n')


def sealed(text: str) -> bytes:
    """Add its checksum to a non-empty JSON object, formatted as by `json.dumps(..., indent=1)`."""
    content = text.encode()
    return b'{\n "sha256": "%s",\n' % hashlib.sha256(content).hexdigest().encode() + content.removeprefix(b"{\n")


def unsealed(content: bytes) -> bytes:
    """Verify and remove the checksum of a JSON object; one without a checksum is returned unchanged.

    Raises:
        ValueError: The content does not match its checksum.
    """
    seal = _SEAL.match(content)
    if seal is None:
        return content
    plain = b"{\n" + content[seal.end() :]
    if hashlib.sha256(plain).hexdigest().encode() != seal[1]:
        raise ValueError("it does not have the checksum that it was written with")
    return plain


def digest(value: Any) -> str:
    """A short digest of a JSON-able value: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits; the file is read in pieces.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
