"""The site in a real browser: every control is used, at two widths, and nothing is asked of anything outside it.

Without a browser these tests are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from overedit.tasks.site.pages import render_pages
from overedit.tasks.site.queries import SiteRows, read_rows
from tests.support.browser import asked_for, bring, forget, is_within_the_page, set_screen, text_of
from tests.support.many_runs import BREAKING, CHANGED, fill_runs, with_instances

WIDTHS = pytest.mark.parametrize("width", [1280, 390])


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> SiteRows:
    return with_instances(read_rows(fill_runs(tmp_path_factory.mktemp("runs"))))


@pytest.fixture(scope="module")
def site(rows: SiteRows, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(rows, tmp_path_factory.mktemp("site"))


def written(rows: SiteRows, folder: Path) -> Path:
    (folder / "reports").mkdir()
    (folder / "reports" / "nightly.html").write_text("<!doctype html><title>The report</title>")
    for name, page in render_pages(rows, {"nightly": "reports/nightly.html"}).items():
        (folder / name).write_text(page, encoding="utf-8")
    return folder


@pytest.fixture
def browser(chromium: Any, site: Path) -> Iterator[Any]:
    """The browser; whatever a test does, no page says anything on its console or asks for anything but the site."""
    chromium.get("about:blank")
    forget(chromium)
    yield chromium
    assert chromium.get_log("browser") == []
    for url in asked_for(chromium):
        assert url.startswith("data:") or Path(urlsplit(url).path).is_relative_to(site.parent), url


def open_page(browser: Any, page: Path, hash: str = "", width: int = 1280, theme: str = "light") -> None:
    set_screen(browser, width, theme)
    browser.get("about:blank")  # another hash alone would not load the page again
    browser.get(f"{page.as_uri()}#{hash}")


def cells(browser: Any, table: str, column: str) -> list[str]:
    """The first line of each cell of a column of the first table below a selector."""
    script = (
        "const table = document.querySelector(`${arguments[0]} table`); if (!table) return [];"
        "const place = [...table.querySelectorAll('th')].findIndex((one) => one.textContent === arguments[1]);"
        "return [...table.querySelectorAll('tbody tr')].map((row) => row.cells[place].childNodes[0].textContent);"
    )
    return list(browser.execute_script(script, table, column))


def choose(browser: Any, select: str, text: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(browser.find_element("id", select)).select_by_visible_text(text)


def press(browser: Any, place: str, name: str) -> Any:
    buttons = browser.find_elements("css selector", f"{place} button, {place} th button")
    (button,) = (button for button in buttons if button.text.strip() == name)
    bring(browser, button).click()
    return button


def type_in(browser: Any, id: str, text: str) -> None:
    field = browser.find_element("id", id)
    field.send_keys("\b" * len(field.get_attribute("value")) + text)


def address(browser: Any) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(browser.current_url).fragment)


def drawn(browser: Any, title: str, kind: str = "path.curve") -> list[str]:
    script = (
        "const figure = [...document.querySelectorAll('figure')].find((one) => one.querySelector('h3').textContent === "
        "arguments[0]); return [...figure.querySelectorAll(arguments[1])].map((one) => one.outerHTML)"
    )
    return list(browser.execute_script(script, title, kind))


def titles(browser: Any) -> list[str]:
    return [one.text for one in browser.find_elements("css selector", "figure h3")]


# ---- the pages as they open


@WIDTHS
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page", ["index.html", "curves.html", "history.html"])
def test_a_page_opens(browser: Any, site: Path, page: str, width: int, theme: str) -> None:
    open_page(browser, site / page, width=width, theme=theme)
    browser.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; });")
    assert is_within_the_page(browser)
    assert "broken" not in browser.title
    colors = browser.execute_script(
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    ink, paper = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in colors)
    assert (ink > paper) == (theme == "dark")
    unnamed = browser.execute_script(
        "return [...document.querySelectorAll('input, select')].filter((one) => !one.labels.length).length"
    )
    assert unnamed == 0


def test_the_pages_lead_to_each_other_and_to_the_reports(browser: Any, site: Path) -> None:
    open_page(browser, site / "index.html")
    for name, heading in (("Curves", "Curves of any runs"), ("History", "Every number over time")):
        browser.find_element("link text", name).click()
        assert text_of(browser, "h1") == heading and text_of(browser, "nav [aria-current]") == name
    browser.find_element("link text", "Leaderboard").click()
    browser.find_element("css selector", "#runs").find_element("link text", "report").click()
    assert browser.title == "The report"
    browser.back()
    browser.find_element("css selector", "#runs").find_element("link text", "history").click()
    assert address(browser)[0] == ("run", "nightly")


def test_a_site_of_one_run_without_history(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    one = {"only": ("pocket-4m", "pocket_world", ("ft_l",))}
    folder = tmp_path_factory.mktemp("one")
    site = written(read_rows(fill_runs(folder / "warehouse", one, cases=2)), folder)
    open_page(browser, site / "history.html")
    assert "No instance recorded" in text_of(browser, "main")
    open_page(browser, site / "index.html")
    assert cells(browser, "#table", "Run") == ["only"] * 2 and "history" not in text_of(browser, "#runs")


def test_a_site_without_any_run(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    site = written(SiteRows(), tmp_path_factory.mktemp("none"))
    for page, words in (("index", "0 of 0 trajectories"), ("curves", "no method"), ("history", "No instance")):
        open_page(browser, site / f"{page}.html")
        assert words in text_of(browser, "main")


def test_text_from_data_stays_text(browser: Any, site: Path) -> None:
    open_page(browser, site / "index.html")
    assert "UltraEdit" + BREAKING in cells(browser, "#table", "Method")
    open_page(browser, site / "history.html")
    browser.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; });")
    assert BREAKING in text_of(browser, "#instances")
    assert browser.title == "Overedit: history"


# ---- the leaderboard


@WIDTHS
def test_the_filters_of_the_leaderboard(browser: Any, site: Path, width: int) -> None:
    open_page(browser, site / "index.html", width=width)
    assert text_of(browser, "#said") == "13 of 13 trajectories"
    choose(browser, "model", "Qwen/Qwen3-4B")
    assert set(cells(browser, "#table", "Run")) == {"zsre-qwen", "counterfact"}
    choose(browser, "dataset", "zsre")
    assert set(cells(browser, "#table", "Run")) == {"zsre-qwen"}
    (box,) = browser.find_elements("css selector", "#methods input[value=ft_l]")
    bring(browser, box).click()
    assert cells(browser, "#table", "Method") == ["LocFT-BF"] and text_of(browser, "#said") == "1 of 13 trajectories"
    assert address(browser) == [("model", "Qwen/Qwen3-4B"), ("dataset", "zsre"), ("without", "ft_l")]
    browser.find_element("id", "reset").click()
    assert text_of(browser, "#said") == "13 of 13 trajectories" and address(browser) == []
    type_in(browser, "q", "LLAMA edit")
    assert cells(browser, "#table", "Method") == ["UltraEdit"]
    type_in(browser, "q", "no such")
    assert cells(browser, "#table", "Method") == [] and not browser.find_element("id", "lay").is_displayed()


def test_protocol_and_edit_count_choose_the_numbers(browser: Any, site: Path, rows: SiteRows) -> None:
    open_page(browser, site / "index.html", "q=zsre-llama&sort=method")
    expected = {}
    for row in rows.points:
        if row["run"] == "zsre-llama" and row["measure"] == "reliability":
            expected[row["trajectory"], row["protocol"], row["edit_count"]] = f"{100 * row['value']:.1f}"
    for protocol, shown in (("generated", "generated"), ("teacher_forced", "teacher forced")):
        choose(browser, "protocol", shown)
        for count, option in ((100, "the last measured"), (10, "10")):
            choose(browser, "edits", option)
            assert cells(browser, "#table", "Edits") == [str(count)] * 2
            assert cells(browser, "#table", "Reliability") == [
                expected[trajectory, protocol, count] for trajectory in ("ft_l", "ultraedit")
            ]
    assert ("protocol", "teacher_forced") in address(browser) and ("edits", "10") in address(browser)


def test_columns_sort_both_ways_by_mouse_and_keyboard(browser: Any, site: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    open_page(browser, site / "index.html")
    shares = [float(cell) for cell in cells(browser, "#table", "Reliability")]
    assert shares == sorted(shares, reverse=True)
    assert browser.find_element("css selector", "#table th[aria-sort=descending]").text.startswith("Reliability")
    press(browser, "#table", "Reliability")
    shares = [float(cell) for cell in cells(browser, "#table", "Reliability")]
    assert shares == sorted(shares) and address(browser) == [("sort", "reliability")]
    button = press(browser, "#table", "Run")
    assert cells(browser, "#table", "Run") == sorted(cells(browser, "#table", "Run"))
    assert browser.switch_to.active_element.text == "Run", "the focus stays on the heading"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert cells(browser, "#table", "Run") == sorted(cells(browser, "#table", "Run"), reverse=True)
    press(browser, "#table", "Collapse at")
    assert cells(browser, "#table", "Collapse at")[-1] == "none"
    for name in ("Method", "Model", "Data", "Edits", "Capability", "Perpl. ×", "s/edit"):
        press(browser, "#table", name)
        assert len(cells(browser, "#table", name)) == 13
    press(browser, "#runs", "Trajectories")
    assert cells(browser, "#runs", "Trajectories")[0] == "6"
    assert button is not None


def test_the_address_holds_the_choices(browser: Any, site: Path) -> None:
    hash = "q=zsre&protocol=probability&edits=10&without=ultraedit&sort=capability"
    open_page(browser, site / "index.html", hash)
    assert cells(browser, "#table", "Method") == ["FT-L", "FT-L", "LocFT-BF"]
    assert browser.find_element("id", "q").get_attribute("value") == "zsre"
    assert sorted(address(browser)) == sorted(parse_qsl(hash))
    browser.execute_script("location.hash = 'q=weekly'")
    assert set(cells(browser, "#table", "Run")) == {"weekly"}
    open_page(browser, site / "index.html", "sort=__proto__&model=nobody&edits=7&protocol=x")
    assert text_of(browser, "#said") == "13 of 13 trajectories" and address(browser) == []


def test_rows_lead_to_their_curves(browser: Any, site: Path) -> None:
    open_page(browser, site / "index.html", "q=zsre")
    browser.find_element("id", "lay").click()
    assert len(drawn(browser, "Reliability")) == 4
    names = [one.text for one in browser.find_elements("css selector", "#legend button span")]
    assert "FT-L · zsre-qwen" in names and len(set(names)) == 4


def test_a_long_table_shows_its_first_rows(
    browser: Any, rows: SiteRows, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """650 trajectories."""
    many = [row | {"run": f"{row['run']}-{turn}"} for turn in range(50) for row in rows.trajectories]
    site = written(SiteRows(sorted(many, key=lambda row: str(row["run"]))), tmp_path_factory.mktemp("long"))
    open_page(browser, site / "index.html")
    assert text_of(browser, "#said") == "650 of 650 trajectories"
    assert len(cells(browser, "#table", "Run")) == 100
    press(browser, "#table", "Show all 650 rows")
    assert len(cells(browser, "#table", "Run")) == 650
    type_in(browser, "q", "weekly-33")
    assert set(cells(browser, "#table", "Run")) == {"weekly-33"}


# ---- the curves


@WIDTHS
def test_any_trajectories_are_laid_over_each_other(browser: Any, site: Path, width: int) -> None:
    open_page(browser, site / "curves.html", width=width)
    assert text_of(browser, "#said") == "8 of 13 chosen" and len(drawn(browser, "Reliability")) == 8
    bring(browser, browser.find_element("id", "none")).click()
    assert "choose a trajectory" in text_of(browser, "#curve .charts") and address(browser) == [("line", "none")]
    for run in ("nightly", "zsre-qwen"):
        (group,) = (one for one in browser.find_elements("css selector", "#list fieldset") if one.text.startswith(run))
        bring(browser, group.find_elements("css selector", "input")[0]).click()
    assert [value for _, value in address(browser)] == ["nightly/ft_l/0", "zsre-qwen/ft_l/0"]
    legend = browser.find_elements("css selector", "#legend button")
    assert [one.text for one in legend] == ["FT-L (order 0) · nightly", "FT-L · zsre-qwen"]
    strokes = [path.split('stroke="')[1].split('"')[0] for path in drawn(browser, "Reliability")]
    assert strokes == ["var(--c0)", "var(--c1)"]
    bring(browser, legend[0]).click()
    assert len(drawn(browser, "Reliability")) == 1 and text_of(browser, "#legend") == "FT-L"
    type_in(browser, "q", "ultraedit")
    browser.find_element("id", "all").click()
    assert len(drawn(browser, "Reliability")) == 6, "the five found, and the one chosen before"
    assert is_within_the_page(browser)


def test_more_curves_than_colors_differ_by_their_dashes(browser: Any, site: Path) -> None:
    open_page(browser, site / "curves.html")
    browser.find_element("id", "all").click()
    looks = [
        (path.split('stroke="')[1].split('"')[0], path.split('stroke-dasharray="')[1].split('"')[0])
        for path in drawn(browser, "Reliability")
    ]
    assert len(looks) == len(set(looks)) == 13


def test_measures_protocols_axes_and_bands(browser: Any, site: Path) -> None:
    open_page(browser, site / "curves.html", "line=weekly/ultraedit/0&line=zsre-llama/ft_l/0")
    assert titles(browser) == ["Reliability", "Capability"]
    for name in ("Generalization", "Locality", "Portability", "Perplexity ×"):
        press(browser, "#measures", name)
    press(browser, "#measures", "Capability")
    assert titles(browser) == ["Reliability", "Generalization", "Locality", "Portability", "Perplexity ×"]
    before = {title: drawn(browser, title) for title in titles(browser)}
    assert all(len(paths) == 2 for paths in before.values())
    press(browser, "#protocols", "teacher forced")
    assert drawn(browser, "Reliability") != before["Reliability"]
    assert drawn(browser, "Perplexity ×") == before["Perplexity ×"]
    press(browser, "#protocols", "probability")
    assert drawn(browser, "Portability") == []
    press(browser, "#protocols", "generated")
    press(browser, "#edits", "linear")
    assert drawn(browser, "Reliability") != before["Reliability"]
    press(browser, "#edits", "log")
    press(browser, "#values", "linear")
    assert drawn(browser, "Perplexity ×") != before["Perplexity ×"]
    assert drawn(browser, "Reliability") == before["Reliability"]
    assert len(drawn(browser, "Reliability", "path.band")) == 2
    press(browser, "#bands", "none")
    assert drawn(browser, "Reliability", "path.band") == []
    found = browser.current_url
    browser.get("about:blank")
    browser.get(found)
    assert titles(browser) == ["Reliability", "Generalization", "Locality", "Portability", "Perplexity ×"]
    assert browser.current_url == found and drawn(browser, "Reliability", "path.band") == []


def test_a_curves_numbers_are_told_by_mouse_and_keyboard(browser: Any, site: Path, rows: SiteRows) -> None:
    from selenium.webdriver.common.keys import Keys

    open_page(browser, site / "curves.html", "line=weekly/ultraedit/0&line=zsre-llama/ft_l/0")
    plot = bring(browser, browser.find_element("css selector", ".plot"))
    plot.send_keys(Keys.ARROW_LEFT)
    told = text_of(browser, "#tip")
    assert "Reliability, 100 edits" in told
    for run, trajectory, name in (
        ("weekly", "ultraedit", "UltraEdit · weekly"),
        ("zsre-llama", "ft_l", "FT-L · zsre-llama"),
    ):
        (row,) = (
            row
            for row in rows.points
            if (row["run"], row["trajectory"], row["measure"]) == (run, trajectory, "reliability")
            and (row["protocol"], row["edit_count"]) == ("generated", 100)
        )
        assert f"{name}: {100 * row['value']:.1f} %" in told and f"n {row['n']}" in told
    plot.send_keys(Keys.ESCAPE)
    assert not browser.find_element("id", "tip").is_displayed()
    plot.click()
    assert browser.find_element("id", "tip").is_displayed()
    first, other = browser.find_elements("css selector", "#legend button")
    browser.execute_script("arguments[0].focus()", first)
    assert len(browser.find_elements("css selector", "g.dim")) == 2, "the other curve, in both charts"
    other.send_keys(Keys.ENTER)
    assert len(drawn(browser, "Reliability")) == 1


# ---- the history


@WIDTHS
def test_the_history_of_a_run(browser: Any, site: Path, width: int) -> None:
    open_page(browser, site / "history.html", width=width)
    assert titles(browser) == ["Reliability", "Generalization", "Locality", "Portability", "Capability", "Perplexity"]
    assert len(drawn(browser, "Reliability")) == 6 and len(drawn(browser, "Reliability", "line.baseline")) == 1
    nights = 30 - CHANGED
    assert len(drawn(browser, "Reliability", "circle.failed")) == 2 * nights
    assert len(drawn(browser, "Portability", "path.unknown")) == 2 * nights
    assert drawn(browser, "Capability", "circle") == []
    press(browser, "#methods", "UltraEdit (order 1)")
    assert len(drawn(browser, "Reliability", "circle.failed")) == nights
    press(browser, "#protocols", "teacher forced")
    choose(browser, "count", "10")
    press(browser, "#values", "linear")
    press(browser, "#bands", "none")
    assert drawn(browser, "Reliability", "path.band") == []
    hash = dict(address(browser))
    assert hash.pop("without") == "UltraEdit (order 1)"
    assert hash == {"run": "nightly", "edits": "10", "protocol": "teacher_forced", "values": "linear", "bands": "none"}
    shown = drawn(browser, "Reliability")
    found = browser.current_url
    browser.get("about:blank")
    browser.get(found)
    assert drawn(browser, "Reliability") == shown and is_within_the_page(browser)


def test_a_historys_numbers_are_told(browser: Any, site: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    open_page(browser, site / "history.html")
    plot = bring(browser, browser.find_element("css selector", ".plot"))
    plot.send_keys(Keys.ARROW_RIGHT)
    assert "2026-11-01 03:15 · 0000 · commit 0000000 · baseline" in text_of(browser, "#tip")
    plot.send_keys(Keys.ARROW_LEFT, Keys.END)
    for _ in range(30):
        plot.send_keys(Keys.ARROW_RIGHT)
    told = text_of(browser, "#tip")
    assert "2026-11-30 03:15 · 001d" in told and "against 0000, the gate failed" in told and "within noise" in told


def test_what_moved_and_what_changed(browser: Any, site: Path) -> None:
    open_page(browser, site / "history.html")
    assert text_of(browser, "#said").startswith("126 of 126 numbers, against 20261101T031500-0000")
    choose(browser, "verdict", "moved")
    assert set(cells(browser, "#gates", "Method")) == {"UltraEdit"} and "2 orders together" in text_of(
        browser, "#gates"
    )
    assert "the gate failed: limit -0.02" in text_of(browser, "#gates")
    choose(browser, "verdict", "not comparable")
    assert set(cells(browser, "#gates", "Measure")) == {"Portability"} and "the items changed" in text_of(
        browser, "#gates"
    )
    choose(browser, "instance", f"20261120T031500-{CHANGED - 1:04x}")
    assert cells(browser, "#gates", "Method") == [] and text_of(browser, "#said").startswith("0 of 126")
    choose(browser, "verdict", "within noise")
    press(browser, "#gates", "Difference")
    assert len(cells(browser, "#gates", "Difference")) == 100
    assert dict(address(browser))["instance"].endswith(f"{CHANGED - 1:04x}")
    choose(browser, "verdict", "all")
    choose(browser, "instance", "20261101T031500-0000, baseline")
    assert "Not compared: first instance" in text_of(browser, "#gates")
    ids = cells(browser, "#instances", "Instance")
    assert len(ids) == 30 and ids == sorted(ids, reverse=True)
    press(browser, "#instances", "Instance")
    assert cells(browser, "#instances", "Instance") == sorted(ids)
    instances = text_of(browser, "#instances")
    assert "accepted 2026-11-01 03:15 by ada" in instances and "with uncommitted changes" in instances
    bring(browser, browser.find_element("xpath", "//summary[text()='3 changes']")).click()
    assert "methods.1.learning_rate\n1e-06 → 5e-07" in text_of(browser, "#instances")
