"""The pages of the site: each contains its styles, script and data, and loads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from overedit.tasks.report.web_page import WEB, as_data, fill_page, joined
from overedit.tasks.site.history import history_data
from overedit.tasks.site.numbers import numbers_data
from overedit.tasks.site.queries import SiteRows

MARK = '<meta name="generator" content="overedit site">'
"""By this line in a page its folder is recognized as a site."""

_FOLDER = Path(__file__).parent / "web"


class _Page(NamedTuple):
    file: str
    name: str
    heading: str
    scripts: tuple[str, ...]
    """Of the folder of the report's scripts, which the pages share."""


_PAGES = (
    _Page("index.html", "Leaderboard", "How many edits can a model take?", ("scales.js",)),
    _Page("curves.html", "Curves", "Curves of any runs", ("scales.js", "controls.js", "curves.js")),
    _Page("history.html", "History", "Every number over time", ("scales.js", "controls.js", "curves.js")),
)
FILES = tuple(page.file for page in _PAGES)


def render_pages(rows: SiteRows, reports: Mapping[str, str]) -> dict[str, str]:
    """The pages as HTML.

    The content security policy of each page forbids it to load anything and to run any script but its own.

    Args:
        rows: The rows of the site.
        reports: Run -> address of its report, for runs that have one.

    Returns:
        File name -> content.
    """
    numbers = numbers_data(rows, reports)
    contents = {"history.html": history_data(rows, reports)}
    return {page.file: _render(page, contents.get(page.file, numbers), numbers["runs"]) for page in _PAGES}


def _render(page: _Page, data: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    own = page.file.replace("index", "leaderboard").removesuffix(".html")
    script = joined([*(WEB / name for name in page.scripts), _FOLDER / "shared.js", _FOLDER / f"{own}.js"])
    slots = {
        "heading": escape(page.heading),
        "summary": f"{len(runs):,} run{'' if len(runs) == 1 else 's'}",
        "pages": "".join(
            f'<a href="{one.file}"{" aria-current=page" if one is page else ""}>{escape(one.name)}</a>'
            for one in _PAGES
        ),
        "main": joined([_FOLDER / f"{own}.html"]),
        "reports": "".join(
            f'<li><a href="{escape(run["report"])}">{escape(run["name"])}</a></li>' for run in runs if run["report"]
        ),
        "data": as_data(data),
    }
    return fill_page(
        joined([_FOLDER / "site.html"]),
        slots,
        title=escape(f"Overedit: {page.name.lower()}"),
        style=joined([WEB / "page.css", _FOLDER / "site.css"]),
        script=script,
        mark=f"\n{MARK}",
    )
