"""A run's report as files: the page, the pictures, and Markdown that links to them."""

from __future__ import annotations

from pathlib import Path

from overedit.tasks.report.data import collect
from overedit.tasks.report.figures import save_figures
from overedit.tasks.report.page import write_page
from overedit.tasks.report.summary import write_markdown
from overedit.tasks.warehouse.vocabulary import PROTOCOLS
from overedit.tasks.warehouse.warehouse import Warehouse

FORMATS = ("html", "markdown", "png", "all")


def write_files(
    warehouse: Warehouse, run: str, folder: Path, *, format: str | None = None, protocol: str | None = None
) -> list[Path]:
    """Write a run's report, or a part of it, from the warehouse alone.

    Args:
        warehouse: Where the run's rows are.
        run: The run's name, which the files have as well.
        folder: Where to; it is made as needed.
        format: One of FORMATS; None for the page and the pictures. Markdown comes with the pictures that it shows.
        protocol: How the pictures' answers are scored; None for `generated`, or the first that was asked.

    Returns:
        The files that were written.

    Raises:
        ValueError: An unknown format, run or protocol, or a protocol under which nothing was asked.
    """
    if format not in (*FORMATS, None):
        raise ValueError(f"format: {format!r} is unknown; choose one of {', '.join(FORMATS)}")
    if protocol not in (*PROTOCOLS, None):
        raise ValueError(f"protocol: {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    data = collect(warehouse, run)
    page = folder / f"{run}.html"
    written: list[Path] = []
    if format != "html":  # first, as a protocol that was not asked ends here
        pictures = save_figures(data, page, protocol=protocol or (data.protocols or PROTOCOLS)[0])
        written += pictures.values()
        if format in ("markdown", "all"):
            written.append(write_markdown(data, page.with_suffix(".md"), pictures))
    if format in ("html", "all", None):
        written.insert(0, write_page(data, page))
    return written
