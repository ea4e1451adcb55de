"""The report of a run as files: the page, the pictures, and Markdown that links to them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from overedit.tasks.report.data import RunData, collect
from overedit.tasks.report.figures import save_figures
from overedit.tasks.report.freshness import report_key, report_tag
from overedit.tasks.report.page import write_page
from overedit.tasks.report.summary import write_markdown
from overedit.tasks.warehouse.vocabulary import PROTOCOLS
from overedit.tasks.warehouse.warehouse import Warehouse

FORMATS = ("html", "markdown", "png", "all")


class WrittenReport(NamedTuple):
    """The files of a published report, and the rows that they show."""

    page: Path
    pictures: dict[str, Path]
    """Name -> file, e.g. `collapse-curve`."""
    data: RunData


def write_report(warehouse: Warehouse, run: str, page: Path) -> WrittenReport:
    """Write the page and the pictures of a run; `is_current` can then tell whether they have to be written again.

    Args:
        warehouse: Has the rows of the run.
        run: The run's name.
        page: The HTML file; the pictures are written into the same folder.

    Raises:
        ValueError: The warehouse has no such run.
    """
    key = report_key(warehouse, run)  # before the rows are read: rows that are written meanwhile make it outdated
    data = collect(warehouse, run)
    pictures = save_figures(data, page, protocol=_first_protocol(data))
    write_page(data, page, tag=report_tag(key, pictures.values()))  # last: the tag says that the pictures are there
    return WrittenReport(page, pictures, data)


def write_files(
    warehouse: Warehouse, run: str, folder: Path, *, format: str | None = None, protocol: str | None = None
) -> list[Path]:
    """Write the report of a run, or a part of it, from the rows of the warehouse.

    Args:
        warehouse: Has the rows of the run.
        run: The run's name, after which the files are named.
        folder: The folder of the files; it is made if needed.
        format: One of FORMATS; None for the page and the pictures. Markdown includes the pictures that it links to.
        protocol: The protocol under which the pictures score answers; None for `generated`, or else the first one that
            the run has rows of.

    Returns:
        The written files.

    Raises:
        ValueError: The format, run or protocol is unknown, or the run has no rows under the protocol.
    """
    if format not in (*FORMATS, None):
        raise ValueError(f"format: {format!r} is unknown; choose one of {', '.join(FORMATS)}")
    if protocol not in (*PROTOCOLS, None):
        raise ValueError(f"protocol: {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    data = collect(warehouse, run)
    page = folder / f"{run}.html"
    written: list[Path] = []
    if format != "html":  # first: an error in the protocol then leaves no file
        pictures = save_figures(data, page, protocol=protocol or _first_protocol(data))
        written += pictures.values()
        if format in ("markdown", "all"):
            written.append(write_markdown(data, page.with_suffix(".md"), pictures))
    if format in ("html", "all", None):
        written.insert(0, write_page(data, page))
    return written


def _first_protocol(data: RunData) -> str:
    return (data.protocols or PROTOCOLS)[0]
