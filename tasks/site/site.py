"""Writing the site: pages over all runs of a warehouse, and copies of the runs' reports."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from overedit.editing.storage.disk_space import raise_no_space
from overedit.tasks.runs.run import NAME
from overedit.tasks.site.pages import FILES, MARK, render_pages
from overedit.tasks.site.queries import read_rows
from overedit.tasks.system.locks import file_lock
from overedit.tasks.warehouse.warehouse import Warehouse

REPORTS = "reports"
"""The folder of the reports inside the site."""

_NEW = ".new-"
"""The beginning of the name of a folder in which files wait until all are written."""

_MOST_CHARACTERS = 4096
"""The mark is at the top of a page; the rest need not be read."""


def write_site(warehouse: Warehouse, out: Path, *, reports: Path) -> Path:
    """Write the site over all runs of a warehouse, or bring it up to date.

    The pages open from a file and from any web server, and ask for nothing outside their folder. The report page of a
    run and its pictures are copied. All files are written before the first one is replaced, each in one step, so a
    failed write leaves the old site, and no reader sees half a page. The same rows and reports give the same bytes.
    Reports of runs that are no longer there are removed. Two writers of one site wait for each other.

    Args:
        warehouse: Has the rows of the runs.
        out: The folder of the site: new, empty, or a site already. Hidden files in it are left alone.
        reports: The folder with the report pages, `RUN.html`, and their pictures, `RUN.png` and `RUN.*.png`; it may be
            missing.

    Returns:
        The first page, `index.html`.

    Raises:
        ValueError: `out` has other files, or is no folder, or its reports are those that would be copied.
        NoSpaceError: The disk is full; the old site is untouched.
    """
    _check_folder(out, reports)
    with file_lock(out / ".lock", f"the site {out}", wait=True):
        rows = read_rows(warehouse)
        runs = dict.fromkeys(row["run"] for row in rows.trajectories)
        found = {run: files for run in runs if (files := _report_files(reports, run))}
        pages = render_pages(rows, {run: f"{REPORTS}/{quote(run)}.html" for run in found})
        copies = [path for files in found.values() for path in files]
        with _replacing(out) as new:
            for name, page in pages.items():
                (new / name).write_text(page, encoding="utf-8")
            (new / REPORTS).mkdir()
            for path in copies:
                if not _is_copied(path, out / REPORTS / path.name):
                    shutil.copy2(path, new / REPORTS)
        _remove_others(out / REPORTS, {path.name for path in copies})
    return out / FILES[0]


def _check_folder(out: Path, reports: Path) -> None:
    accepted = "accepted is a folder that is new, empty, or a site already"
    if out.exists() and not out.is_dir():
        raise ValueError(f"out: {out} is not a folder; {accepted}")
    others = [path for path in out.iterdir() if not path.name.startswith(".")] if out.exists() else []
    if others and not any(_is_page(out / name) for name in FILES):
        raise ValueError(f"out: {out} has other files, such as {min(others).name}; {accepted}")
    copied = out / REPORTS
    if copied.is_symlink() or (copied.exists() and copied.resolve() == reports.resolve()):
        raise ValueError(f"out: {copied} is not a folder of copies, but leads to the reports themselves; {accepted}")


def _is_page(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as stream:
            return MARK in stream.read(_MOST_CHARACTERS)
    except (OSError, UnicodeDecodeError):
        return False


def _report_files(reports: Path, run: str) -> list[Path]:
    """The report page of a run and its pictures; nothing without the page. A link is not followed."""
    page = reports / f"{run}.html"
    if re.fullmatch(NAME, run) is None or not page.is_file() or page.is_symlink():
        return []
    pictures = sorted([*reports.glob(f"{run}.png"), *reports.glob(f"{run}.*.png")])
    return [page, *(path for path in pictures if path.is_file() and not path.is_symlink())]


def _is_copied(path: Path, copy: Path) -> bool:
    """Whether a copy is there already: it has the same size, and the time of the file's last change."""
    if not copy.is_file():
        return False
    one, other = path.stat(), copy.stat()
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Make a temporary folder, whose files replace those in `folder` when the block ends without an error."""
    for left in folder.glob(f"{_NEW}*"):  # by a writer that was killed
        shutil.rmtree(left, ignore_errors=True)
    with raise_no_space(folder):
        new = Path(tempfile.mkdtemp(prefix=_NEW, dir=folder))
        try:
            yield new
            paths = [path for path in new.rglob("*") if path.is_file()]
            for path in paths:
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
            for path in sorted(paths, key=lambda path: -len(path.parts)):  # pages after the reports that they link to
                target = folder / path.relative_to(new)
                target.parent.mkdir(exist_ok=True)
                path.replace(target)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _remove_others(folder: Path, kept: set[str]) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in kept and not path.is_dir():
            path.unlink(missing_ok=True)
