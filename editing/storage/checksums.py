"""JSON files that carry a checksum of themselves, so that a flipped bit in them is found.

The checksum stands in the first line after the brace, as the key `sha256`, and is of all the other bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

_SEAL = re.compile(rb'\A\{\n "sha256": "([^"\n]*)",\n')


def sealed(text: str) -> bytes:
    """A JSON object, as `json.dumps(..., indent=1)` writes it and not empty, with its checksum."""
    content = text.encode()
    return b'{\n "sha256": "%s",\n' % hashlib.sha256(content).hexdigest().encode() + content.removeprefix(b"{\n")


def unsealed(content: bytes) -> bytes:
    """The same object without its checksum; one that carries none is taken as it is.

    Raises:
        ValueError: It is not what was written.
    """
    seal = _SEAL.match(content)
    if seal is None:
        return content
    plain = b"{\n" + content[seal.end() :]
    if hashlib.sha256(plain).hexdigest().encode() != seal[1]:
        raise ValueError("it does not have the checksum that it was written with")
    return plain


def digest(value: Any) -> str:
    """A short name for a JSON-able value: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
