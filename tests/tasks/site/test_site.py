"""The site as files and as data: what is written, what is taken away, what is refused."""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from overedit.editing.storage.disk_space import NoSpaceError
from overedit.tasks.site.history import history_data
from overedit.tasks.site.pages import FILES, render_pages
from overedit.tasks.site.queries import SiteRows, read_rows
from overedit.tasks.site.site import write_site
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.command_line import Run
from tests.support.many_runs import BREAKING, CHANGED, RUNS, fill_runs, with_instances
from tests.support.small_disk import small_disk

VOID = {"meta", "link", "input", "path", "circle", "line"}


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return fill_runs(tmp_path_factory.mktemp("runs") / "warehouse")


@pytest.fixture(scope="module")
def rows(warehouse: Warehouse) -> SiteRows:
    return read_rows(warehouse)


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """The reports of two runs, and of one that is no longer there."""
    folder = tmp_path / "home" / "reports"
    folder.mkdir(parents=True)
    for name in ("nightly.html", "nightly.png", "nightly.retention.png", "zsre-qwen.html", "gone.html", "gone.png"):
        (folder / name).write_text(f"the content of {name}")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def data_of(page: str) -> Any:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found)


class Checker(HTMLParser):
    """Checks that every tag is closed, and keeps where the page leads and what it would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.links |= {value or "" for name, value in attrs if tag == "a" and name == "href"}
        self.loaded += [
            value or "" for name, value in attrs if tag != "a" and name in ("src", "href", "srcset", "action")
        ]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


# ---- the pages


def test_the_pages_are_whole_and_load_nothing(rows: SiteRows) -> None:
    pages = render_pages(with_instances(rows), {"nightly": "reports/nightly.html"})
    assert tuple(pages) == FILES == ("index.html", "curves.html", "history.html")
    for page in pages.values():
        checker = Checker()
        checker.feed(page)
        assert checker.open == [] and checker.loaded == ["data:,"]
        assert checker.links - {"curves.html"} <= {*FILES, "reports/nightly.html"}
        assert "{{" not in page and "@import" not in page and "url(" not in page and "innerHTML" not in page
        assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
        (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
        assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")
        assert BREAKING not in page


def test_the_leaderboard_holds_the_views_numbers(warehouse: Warehouse, rows: SiteRows) -> None:
    data = data_of(render_pages(rows, {})["index.html"])
    assert [run["name"] for run in data["runs"]] == sorted(RUNS)
    assert len(data["lines"]) == 3 + sum(len(methods) for _, _, methods in RUNS.values())
    (line,) = (line for line in data["lines"] if line["id"] == "zsre-llama/ft_l/0")
    assert (line["method_name"], line["model"]) == ("FT-L", "meta-llama/Meta-Llama-3-8B-Instruct")
    (board,) = warehouse.query("SELECT * FROM leaderboard WHERE run = 'zsre-llama' AND trajectory = 'ft_l'").to_pylist()
    assert line["measured"] == board["edit_count"] == 100 and line["collapse_at"] == board["collapse_at"] == 10
    last = {name: points[-1] for name, points in line["series"].items()}
    names = {"reliability generated": "reliability", "locality generated": "locality", "capability": "capability"}
    names |= {"perplexity": "perplexity_ratio", "seconds": "seconds_per_edit"}
    for name, column in names.items():
        assert last[name][0] == 100 and last[name][1] == pytest.approx(board[column], rel=1e-5), name
    assert last["reliability generated"][2:] == pytest.approx(
        [board["reliability_low"], board["reliability_high"], board["reliability_n"]], rel=1e-5
    )
    assert [point[0] for point in line["series"]["capability"]] == [0, 1, 10, 100]


def test_a_number_that_is_not_finite_is_shown_as_such(tmp_path: Path, rows: SiteRows) -> None:
    points = [
        row | {"value": float("inf"), "high": float("nan")} for row in rows.points if row["measure"] == "perplexity"
    ]
    (line, *_) = data_of(render_pages(SiteRows(rows.trajectories, points), {})["index.html"])["lines"]
    assert line["series"]["perplexity"][0][1:4:2] == [None, None]


def test_the_history_holds_instances_numbers_and_gates(rows: SiteRows) -> None:
    (run,) = history_data(with_instances(rows), {"nightly": "reports/nightly.html"})["runs"]
    assert len(run["instances"]) == 30 and run["report"] == "reports/nightly.html"
    changed = run["instances"][CHANGED]
    assert (changed["verdict"], changed["gate"], changed["dirty"]) == ("2 numbers moved", "failed", True)
    assert changed["changes"][1:] == [
        ["methods.1.learning_rate", "1e-06", "5e-07"],
        [BREAKING, "", '["<b>", {"x": 1}]'],
    ]
    assert [one["is_baseline"] for one in run["instances"]] == [True] + 29 * [False]
    assert run["instances"][0]["accepted"] == [{"at": "2026-11-01 03:15", "by": "ada", "note": BREAKING}]
    names = [line["name"] for line in run["lines"]]
    (number,) = (
        one
        for one in run["numbers"]
        if names[one["line"]] == "UltraEdit (order 0)"
        and (one["measure"], one["protocol"], one["count"]) == ("reliability", "generated", 100)
    )
    assert len(number["points"]) == 30
    (comparison,) = (
        one
        for one in run["comparisons"]
        if one["name"] == "UltraEdit"
        and (one["measure"], one["protocol"], one["count"]) == ("reliability", "generated", 100)
    )
    assert [names[line] for line in comparison["lines"]] == ["UltraEdit (order 0)", "UltraEdit (order 1)"]
    verdicts = [run["words"][gate[9]] for gate in comparison["gates"]]
    assert verdicts == (CHANGED - 1) * ["within noise"] + (30 - CHANGED) * ["moved"]
    assert number["points"][CHANGED][1] == pytest.approx(number["points"][0][1] / 2, abs=0.02)


def test_times_are_utc_wherever_the_site_is_written(rows: SiteRows) -> None:
    instances = with_instances(rows)
    elsewhere = [
        row | {"started_at": row["started_at"].astimezone(ZoneInfo("Asia/Tokyo"))} for row in instances.instances
    ]
    assert render_pages(replace(instances, instances=elsewhere), {}) == render_pages(instances, {})


def test_without_instances_the_history_is_empty(rows: SiteRows) -> None:
    assert data_of(render_pages(rows, {})["history.html"]) == {"runs": []}


# ---- the folder


def test_the_folder_is_self_contained(warehouse: Warehouse, reports: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    assert write_site(warehouse, out, reports=reports) == out / "index.html"
    copied = ("nightly.html", "nightly.png", "nightly.retention.png", "zsre-qwen.html")
    assert set(contents(out)) == {*FILES, *(f"reports/{name}" for name in copied)}
    assert (out / "reports" / "nightly.png").read_text() == "the content of nightly.png"
    shown = {run["name"]: run["report"] for run in data_of((out / "index.html").read_text())["runs"]}
    assert shown["nightly"] == "reports/nightly.html" and shown["weekly"] is None


def test_the_same_rows_give_the_same_bytes(warehouse: Warehouse, reports: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_site(warehouse, tmp_path / name, reports=reports)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
    write_site(warehouse, tmp_path / "one", reports=reports)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_it_follows_the_warehouse(tmp_path: Path, reports: Path) -> None:
    """A changed report is copied again, that of a run which is gone goes, and other files stay."""
    warehouse, out = fill_runs(tmp_path / "warehouse", dict(list(RUNS.items())[3:]), cases=2), tmp_path / "site"
    (reports / "counterfact.html").write_text("a report")
    write_site(warehouse, out, reports=reports)
    (out / ".nojekyll").touch()
    (out / "CNAME").write_text("results.example.org")
    (reports / "zsre-qwen.html").write_text("a newer report")
    for folder in (tmp_path / "warehouse").glob("*/counterfact"):
        shutil.rmtree(folder)
    write_site(warehouse, out, reports=reports)
    assert set(contents(out)) == {*FILES, "reports/zsre-qwen.html", ".nojekyll", "CNAME"}
    assert (out / "reports" / "zsre-qwen.html").read_text() == "a newer report"


def test_a_folder_with_other_files_is_refused(warehouse: Warehouse, reports: Path, tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "index.html").write_text("<title>My thesis</title>")
    with pytest.raises(ValueError, match=r"out: .*thesis has other files, such as index.html; accepted is a folder"):
        write_site(warehouse, out, reports=reports)
    assert contents(out) == {"index.html": b"<title>My thesis</title>"}
    with pytest.raises(ValueError, match="is not a folder; accepted is"):
        write_site(warehouse, out / "index.html", reports=reports)


def test_it_never_takes_the_reports_themselves_for_copies(warehouse: Warehouse, reports: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    write_site(warehouse, out, reports=tmp_path / "nowhere")
    before = contents(reports)
    (out / "reports").symlink_to(reports)
    with pytest.raises(ValueError, match="leads to the reports themselves"):
        write_site(warehouse, out, reports=reports)
    shutil.copy(out / "index.html", reports.parent)
    with pytest.raises(ValueError, match="leads to the reports themselves"):
        write_site(warehouse, reports.parent, reports=reports)
    assert contents(reports) == before


def test_no_link_among_the_reports_is_followed(warehouse: Warehouse, reports: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret")
    (reports / "weekly.html").symlink_to(tmp_path / "secret")
    (reports / "nightly.x.png").symlink_to(tmp_path / "secret")
    write_site(warehouse, tmp_path / "site", reports=reports)
    assert not any(b"a secret" in content for content in contents(tmp_path / "site").values())


def test_a_failed_write_leaves_the_old_site(
    warehouse: Warehouse, reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", monkeypatch, megabytes=1) as disk:
        out = disk / "site"
        write_site(warehouse, out, reports=reports)
        before = contents(out)
        (reports / "nightly.html").write_text("a newer report")
        (reports / "weekly.html").write_bytes(bytes(2_000_000))
        with pytest.raises(NoSpaceError):
            write_site(warehouse, out, reports=reports)
        assert contents(out) == before
        (reports / "weekly.html").unlink()
        write_site(warehouse, out, reports=reports)
        assert contents(out)["reports/nightly.html"] == b"a newer report"


def test_what_a_killed_writer_left_is_removed(warehouse: Warehouse, reports: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    (out / ".new-killed" / "reports").mkdir(parents=True)
    (out / ".new-killed" / "index.html").write_text("half a pa")
    write_site(warehouse, out, reports=reports)
    assert not (out / ".new-killed").exists()


def test_two_writers_wait_for_each_other(warehouse: Warehouse, reports: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    with ThreadPoolExecutor(2) as writers:
        written = [writers.submit(write_site, warehouse, out, reports=reports) for _ in range(4)]
        assert {one.result() for one in written} == {out / "index.html"}
    assert len(contents(out)) == 7


# ---- the command


def test_the_command_writes_it(overedit: Run, warehouse: Warehouse, reports: Path) -> None:
    home = reports.parent
    (home / "warehouse").symlink_to(warehouse.root)
    assert overedit("site", "out", "--home", str(home)) == (0, "wrote out/index.html\n", "")
    code, out, err = overedit("site", str(home), "--home", str(home))
    assert (code, out) == (2, "") and "has other files" in err and len(err.splitlines()) == 1
    code, out, err = overedit("site", "out", "--home", "nowhere")
    assert (code, out) == (2, "") and "there is no warehouse" in err
