"""Whether a report on the disk is up to date, so that it need not be written again; a check without slow imports.

A meta tag of the page holds a key over the run's rows and the code that made the page, and the names of the pictures
that were written with it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from html import escape
from importlib.metadata import version
from pathlib import Path

from overedit.editing.storage.checksums import digest
from overedit.tasks.warehouse.warehouse import Warehouse

_SUFFIXES = {".py", ".sql", ".html", ".css", ".js"}
_PACKAGES = ("duckdb", "matplotlib", "pyarrow", "scipy")
_FOLDERS = ("report", "warehouse")
_TAG = re.compile(r'<meta name="overedit-report" content="([^"]*)">')
_MOST_CHARACTERS = 4096
"""The tag is at the top of the page; the rest need not be read."""


def report_key(warehouse: Warehouse, run: str) -> str | None:
    """A key over everything that the report of a run depends on: its rows, our code, and the packages that draw it.

    Unlike a stage key it covers the bytes of source files, not their syntax trees. That takes milliseconds, and to
    write a report again after a changed comment does no harm.

    Returns:
        The key; None for a warehouse in an object store, whose reports are always written.
    """
    rows = warehouse.checksums(run)
    if rows is None:
        return None
    tasks = Path(__file__).parents[1]
    sources = [path for folder in _FOLDERS for path in (tasks / folder).rglob("*") if path.suffix in _SUFFIXES]
    sources.append(tasks / "runs" / "run.py")
    code = {str(path.relative_to(tasks)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(sources)}
    return digest([run, rows, code, {package: version(package) for package in _PACKAGES}])


def report_tag(key: str | None, pictures: Iterable[Path]) -> str:
    """The meta tag of a page that was written together with its pictures; empty without a key."""
    content = " ".join([key, *(picture.name for picture in pictures)]) if key else ""
    return f'<meta name="overedit-report" content="{escape(content)}">' if key else ""


def is_current(warehouse: Warehouse, run: str, page: Path) -> bool:
    """Whether a page and its pictures exist and were made from the same rows by the same code.

    Args:
        warehouse: Has the rows of the run.
        run: The run's name.
        page: The HTML file that `write_report` wrote.
    """
    try:
        with page.open(encoding="utf-8") as stream:
            found = _TAG.search(stream.read(_MOST_CHARACTERS))
    except (OSError, UnicodeDecodeError):
        return False
    if found is None:
        return False
    key, *pictures = found[1].split() or [""]
    return all((page.parent / name).is_file() for name in pictures) and key == report_key(warehouse, run)
