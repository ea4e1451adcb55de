"""Whether a report is up to date: the rows, the code and the pictures that it was made with."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from overedit.tasks.report import figures, freshness
from overedit.tasks.report.files import WrittenReport, write_files, write_report
from overedit.tasks.report.freshness import is_current, report_key
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.paths import REPOSITORY
from tests.support.synthetic_run import RUN, fill, identity, partition


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return fill(tmp_path / "warehouse", cases=2, by_count=False)


@pytest.fixture
def written(warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WrittenReport:
    monkeypatch.setattr(figures, "_picture", lambda *_: b"drawn")
    return write_report(warehouse, RUN, tmp_path / "reports" / f"{RUN}.html")


def test_a_report_is_current_until_a_row_changes(warehouse: Warehouse, written: WrittenReport) -> None:
    assert is_current(warehouse, RUN, written.page)
    cost = identity("ft_l", 1000) | {"stage": "swap", "seconds": 1.0, "num_items": 1}
    place = partition("ft_l", 1000)
    warehouse.write("costs", [cost], partition=place, key="k", part="new")
    assert not is_current(warehouse, RUN, written.page), "a new file"
    write_report(warehouse, RUN, written.page)
    assert is_current(warehouse, RUN, written.page)
    warehouse.write("costs", [cost], partition=place, key="k", part="new")
    assert is_current(warehouse, RUN, written.page), "the same rows, written again"
    warehouse.write("costs", [cost | {"seconds": 2.0}], partition=place, key="k", part="new")
    assert not is_current(warehouse, RUN, written.page), "another value in a file of the same size"


def test_rows_of_another_run_leave_a_report_current(warehouse: Warehouse, written: WrittenReport) -> None:
    other = {"run": "other"}
    cost = identity("ft_l", 1) | other | {"stage": "edit", "seconds": 1.0, "num_items": 1}
    warehouse.write("costs", [cost], partition=partition("ft_l", 1) | other, key="k")
    assert is_current(warehouse, RUN, written.page)


def test_a_change_of_the_code_makes_a_report_outdated(
    warehouse: Warehouse, written: WrittenReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = Path(freshness.__file__).parents[1]
    for room in ("report", "warehouse", "runs"):
        shutil.copytree(tasks / room, tmp_path / "tasks" / room)
    monkeypatch.setattr(freshness, "__file__", str(tmp_path / "tasks" / "report" / "freshness.py"))
    assert is_current(warehouse, RUN, written.page), "the same code in another folder"
    for name in ("report/html.py", "report/web/page.css", "warehouse/sql/views/leaderboard.sql", "runs/run.py"):
        path = tmp_path / "tasks" / name
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        assert not is_current(warehouse, RUN, written.page), name
        path.write_bytes(content)


def test_a_report_without_its_page_or_a_picture_is_not_current(warehouse: Warehouse, written: WrittenReport) -> None:
    picture = written.pictures["retention"]
    picture.rename(picture.with_suffix(".gone"))
    assert not is_current(warehouse, RUN, written.page)
    picture.with_suffix(".gone").rename(picture)
    assert is_current(warehouse, RUN, written.page)
    for content in (b"", b'<meta name="overedit-report" content=" ">', b"\xff"):
        written.page.write_bytes(content)
        assert not is_current(warehouse, RUN, written.page)
    written.page.unlink()
    assert not is_current(warehouse, RUN, written.page)


def test_a_part_of_a_report_is_not_current(warehouse: Warehouse, written: WrittenReport) -> None:
    """It may lie beside older pictures."""
    write_files(warehouse, RUN, written.page.parent, format="html")
    assert not is_current(warehouse, RUN, written.page)


def test_an_object_store_has_no_key() -> None:
    warehouse = Warehouse("memory://overedit-test/report")
    assert report_key(warehouse, RUN) is None
    assert not is_current(warehouse, RUN, Path("nowhere.html"))


def test_the_check_imports_no_heavy_library(warehouse: Warehouse, written: WrittenReport) -> None:
    code = f"""
import sys
from pathlib import Path
from overedit.tasks.report.freshness import is_current
from overedit.tasks.warehouse.warehouse import Warehouse
assert is_current(Warehouse({warehouse.root!r}), {RUN!r}, Path({str(written.page)!r}))
assert not sys.modules.keys() & {{"torch", "matplotlib", "scipy", "prefect"}}
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
