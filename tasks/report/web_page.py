"""What every HTML page shares, the report's and the site's: its template, its script and its data."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

WEB = Path(__file__).parent / "web"
"""The folder of the styles and scripts that the pages share."""


def joined(paths: Iterable[Path]) -> str:
    """The content of text files, one after the other."""
    return "".join(path.read_text(encoding="utf-8") for path in paths)


def fill(template: str, slots: Mapping[str, str]) -> str:
    """A template with its slots `{{name}}` filled. It is one pass: the content of a slot is not searched for slots."""
    return re.sub(r"\{\{(\w+)\}\}", lambda slot: slots[slot[1]], template)


def as_data(content: Any) -> str:
    """JSON for a script element of the type `application/json`: no text in it can end the element.

    Raises:
        ValueError: A number is not finite.
    """
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def script_hash(script: str) -> str:
    """The hash by which a page's content security policy allows a script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
