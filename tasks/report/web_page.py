"""What every HTML page shares, the report's and the site's: its template, its script and its data."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from html import escape
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


def fill_page(body: str, slots: Mapping[str, str], *, title: str, style: str, script: str = "", mark: str = "") -> str:
    """A whole page: the head that all pages share, and a body with its slots filled.

    The head's content security policy forbids the page to load anything, and to run any script but this one.

    Args:
        body: From `<body>` to the end; the slot `{{script}}` gets the script.
        slots: Slot -> HTML.
        title: HTML.
        style: CSS.
        script: JavaScript; none is allowed if it is empty.
        mark: A meta tag behind the first one, by which the page is recognized.
    """
    policy = f"script-src 'sha256-{script_hash(script)}'; " if script else ""
    head = {"title": title, "style": style, "script": script, "script_policy": policy, "mark": mark}
    return fill(joined([WEB / "head.html"]) + body, {**slots, **head})


def facts_list(facts: Mapping[str, object]) -> str:
    """The entries of a page's `<dl class="facts">`; empty values are left out."""
    shown = {escape(name): escape(str(fact)) for name, fact in facts.items() if fact}
    return "".join(f"<div><dt>{name}</dt><dd>{fact}</dd></div>" for name, fact in shown.items())


def as_data(content: Any) -> str:
    """JSON for a script element of the type `application/json`: no text in it can end the element.

    Raises:
        ValueError: A number is not finite.
    """
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def script_hash(script: str) -> str:
    """The hash by which a page's content security policy allows a script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
