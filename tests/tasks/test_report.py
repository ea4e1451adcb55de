"""The report, its table and its picture, on a made-up run; the page itself in a real browser.

The browser is Debian's: `apt-get install chromium chromium-driver`. Without it those tests are skipped.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tasks.report import curve_data_uri, curve_svg, save_curve_png, summary_markdown, summary_table, write_report
from tasks.report_charts import chart_data
from tasks.report_data import collect
from tasks.report_gaps import gaps
from tasks.views import view_sql
from tasks.warehouse import Warehouse
from tests.tasks.synthetic_run import COUNTS, METHODS, RUN, fill, identity, partition, run_row

CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
VOID = {"meta", "link", "br"}


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return fill(tmp_path_factory.mktemp("synthetic"))


@pytest.fixture(scope="module")
def page(warehouse: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reports") / "made" / "synthetic.html"
    assert write_report(warehouse, RUN, path) == path
    return path


class Checker(HTMLParser):
    """Checks that every tag is closed, and keeps what would be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def test_the_page_is_whole_and_loads_nothing(page: Path) -> None:
    checker = Checker()
    content = page.read_text(encoding="utf-8")
    checker.feed(content)
    assert checker.open == []
    assert checker.loaded == ["data:,"]
    assert "{{" not in content and "@import" not in content and "url(" not in content
    assert "http" not in content.replace("http://www.w3.org/2000/svg", "")


def test_text_from_data_stays_text(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    assert "<b>capital</b>" not in content and "&lt;b&gt;capital&lt;/b&gt;" in content
    assert "<script>document.title" not in content


def test_each_method_has_its_sentence(page: Path) -> None:
    checker = Checker()
    checker.feed(page.read_text(encoding="utf-8"))
    text = " ".join(" ".join(checker.text).split())
    assert "LocFT-BF did not collapse up to 1,000 edits." in text
    assert re.search(r"FT-L collapsed at 10 edits, by capability\. Capability 7\d\.\d % \(at most ", text)
    assert "The last count measured before it: 1." in text


def test_the_page_states_the_limits_that_the_view_uses(page: Path) -> None:
    sql = view_sql("collapse_point")
    limits = {name: float(value) for value, name in re.findall(r"([\d.]+) AS (\w+)", sql)}
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert f"bound is below {100 * limits['capability_share']:.0f} % of the pristine model's" in text
    assert f"perplexity is above {limits['perplexity_multiple']:.0f} times" in text
    assert f"more than {100 * limits['empty_share']:.0f} % of the generated outputs are empty" in text
    assert f"reliability is below {100 * limits['reliability_share']:.0f} % of its best" in text


def test_the_charts_hold_the_views_numbers(warehouse: Warehouse) -> None:
    data = chart_data(collect(warehouse, RUN))
    assert data["edit_counts"] == [0, *COUNTS] and data["protocols"] == ["generated", "teacher_forced", "probability"]
    names = [line["name"] for line in data["lines"]]
    assert sorted(names) == sorted(METHODS.values())
    (chart,) = (chart for chart in data["charts"] if chart["title"] == "Reliability")
    series = chart["lines"]["teacher_forced"][names.index("UltraEdit")]["points"]
    rows = warehouse.query(
        "SELECT edit_count AS x, value AS y, low, high, n FROM reliability_by_edit_count "
        "WHERE label = 'UltraEdit' AND measure = 'reliability' AND protocol = 'teacher_forced' ORDER BY edit_count"
    ).to_pylist()
    assert series == rows and len(rows) == 5
    assert data["lines"][names.index("FT-L")]["collapse_at"] == 10


def told(root: Path) -> Warehouse:
    """The made-up run, of which one method told what its updates did, two turns to each edit count."""
    warehouse = fill(root, cases=4)
    for count in COUNTS:
        rows = [
            identity("ft_l", count)
            | {"first_edit": turn, "last_edit": turn, "site": site, "quantity": quantity, "value": value * size * count}
            for turn, size in ((count - 1, 1.0), (count, 0.5))
            for site, value in (("1.down_proj", 2.0), ("2.down_proj", 3.0))
            for quantity in ("preservation", "update_norm", "memorization")
        ]
        rows[0]["value"] = 0.0  # nothing that a logarithm could show
        warehouse.write("diagnostics", rows, partition=partition("ft_l", count), key="made up")
    return warehouse


def test_what_the_updates_did_is_shown_where_a_method_told_it(warehouse: Warehouse, tmp_path: Path) -> None:
    titles = {"What the edits did to ordinary keys", "Size of the updates"}
    assert not titles & {chart["title"] for chart in chart_data(collect(warehouse, RUN))["charts"]}
    data = chart_data(collect(told(tmp_path), RUN))
    charts = [chart for chart in data["charts"] if chart["title"] in titles]
    index = next(i for i, line in enumerate(data["lines"]) if line["name"] == "FT-L")
    assert len(charts) == 2
    for chart in charts:
        points = {series["line"]: series["points"] for series in chart["lines"]["all"]}
        assert chart["y"] == "log"
        assert [(point["x"], point["y"]) for point in points.pop(index)] == [(count, 3.0 * count) for count in COUNTS]
        assert not any(points.values())


def test_a_long_trajectorys_speed_is_shown_in_few_points(tmp_path: Path) -> None:
    warehouse = fill(tmp_path, cases=4)
    turns = [
        {"first_edit": first, "last_edit": first + 99, "quantity": "seconds", "value": 0.1}
        for first in range(101, 1_000_000, 100)
    ]
    rows = [identity("ultraedit", 1000) | turn for turn in turns]
    warehouse.write("diagnostics", rows, partition=partition("ultraedit", 1000), key="made up")
    data = chart_data(collect(warehouse, RUN))
    (chart,) = (chart for chart in data["charts"] if chart["title"] == "Seconds per 1,000 edits")
    assert data["edit_counts"] == [0, *COUNTS]
    (points,) = (series["points"] for series in chart["lines"]["all"] if series["points"])
    assert [point["x"] for point in points] == [digit * 10**zeros for zeros in (2, 3, 4, 5) for digit in range(2, 11)]
    assert [point["y"] for point in points] == pytest.approx([1.0] * len(points))
    assert sum(point["n"] for point in points) == 9999


def test_gaps_are_said(warehouse: Warehouse) -> None:
    said = "\n".join(gaps(collect(warehouse, RUN)))
    assert re.search(
        r"Portability, probability: \d+ answers have no score \(no second answer to compare with\)\.", said
    )
    assert "At 1,000 edits only 60 of the edited cases were asked." in said
    assert "Only one order of the edits was tried" in said
    assert "Perplexity was not measured" not in said


def test_a_run_that_failed_or_barely_began_still_has_a_page(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse")
    row = identity("locft_bf", 1000) | run_row("LocFT-BF") | {"status": "failed", "error": "<NaN> in the loss"}
    warehouse.write("runs", [row], partition=partition("locft_bf", 1000), key="k")
    page = write_report(warehouse, RUN, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "was not measured after any edit." in page and "&lt;NaN&gt; in the loss" in page
    assert save_curve_png(warehouse, RUN, tmp_path / "curve.png").stat().st_size > 0
    assert "failed" in summary_markdown(warehouse, RUN)


def test_orderings_are_told_apart(warehouse: Warehouse, tmp_path: Path) -> None:
    several = Warehouse(tmp_path)
    for seed in (0, 1):
        rows = [identity("locft_bf", 10, seed) | run_row("LocFT-BF")]
        several.write("runs", rows, partition=partition("locft_bf", 10) | {"order_seed": seed}, key="k")
    assert [line.name for line in collect(several, RUN).lines] == ["LocFT-BF (order 0)", "LocFT-BF (order 1)"]


def test_an_unknown_run_is_a_clear_error(warehouse: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"run: 'nightly' is not in .*; its runs are: synthetic"):
        write_report(warehouse, "nightly", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_summary_fits_a_terminal(warehouse: Warehouse) -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(summary_table(warehouse, RUN))
    text = capture.get()
    assert max(len(line) for line in text.splitlines()) <= 80 and "…" not in text
    for name in METHODS.values():
        assert name in text


def test_the_summary_as_markdown(warehouse: Warehouse) -> None:
    lines = summary_markdown(warehouse, RUN).splitlines()
    assert lines[0].startswith("| method | edits | rel. % |")
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(METHODS) and len({line.count("|") for line in table}) == 1
    assert sum(line.startswith("- **") for line in lines) == len(METHODS)


def test_the_picture(warehouse: Warehouse, tmp_path: Path) -> None:
    path = save_curve_png(warehouse, RUN, tmp_path / "made" / "curve.png")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG") and int.from_bytes(content[16:20]) == 1920
    data = collect(warehouse, RUN)
    assert base64.b64decode(curve_data_uri(data).removeprefix("data:image/png;base64,")) == content
    svg = curve_svg(data, protocol="teacher_forced")
    assert svg.startswith(b"<?xml") and svg == curve_svg(data, protocol="teacher_forced") and svg != curve_svg(data)


# ---- in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    if not (CHROMIUM.exists() and CHROMEDRIVER.exists()):
        pytest.skip("no browser here: apt-get install chromium chromium-driver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    flags = ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking")
    for flag in (*flags, "disable-component-update", "disable-sync", "force-prefers-reduced-motion"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('browser')}")
    driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))
    yield driver
    driver.quit()


def open_page(browser: Any, page: Path, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


def lines_drawn(browser: Any, title: str) -> list[str]:
    """The paths of a chart's lines."""
    return list(
        browser.execute_script(
            "const figure = [...document.querySelectorAll('figure')]"
            ".find((one) => one.querySelector('h3').textContent === arguments[0]);"
            "return [...figure.querySelectorAll('path[stroke-width]')].map((path) => path.getAttribute('d'));",
            title,
        )
    )


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(browser: Any, page: Path, width: int) -> None:
    open_page(browser, page, width)
    assert browser.title == f"Overedit: {RUN}"
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.querySelectorAll('figure svg').length") == 10
    assert len(lines_drawn(browser, "Reliability")) == len(METHODS)
    wide = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], "the page scrolls sideways"
    cut = browser.execute_script(
        "return [...document.querySelectorAll('figure svg text')].filter((text) => {"
        "const box = text.getBoundingClientRect(); return box.left < 0 || box.right > innerWidth; }).length"
    )
    assert cut == 0


def test_the_updates_in_a_browser(browser: Any, tmp_path: Path) -> None:
    open_page(browser, write_report(told(tmp_path / "warehouse"), RUN, tmp_path / "page.html"), 1280)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.querySelectorAll('figure svg').length") == 12
    (path,) = (line for line in lines_drawn(browser, "What the edits did to ordinary keys") if line)
    assert re.fullmatch(r"M[\d. ]+(L[\d. ]+){3}", path)


def test_the_protocol_switch(browser: Any, page: Path) -> None:
    open_page(browser, page, 1280)
    before, capability = lines_drawn(browser, "Reliability"), lines_drawn(browser, "Capability")
    buttons = browser.find_elements("css selector", "#protocols button")
    assert [button.text for button in buttons] == ["generated", "teacher forced", "probability"]
    buttons[1].click()
    assert lines_drawn(browser, "Reliability") != before
    assert lines_drawn(browser, "Capability") == capability
    assert [button.get_attribute("aria-pressed") for button in buttons] == ["false", "true", "false"]
    shown = browser.execute_script(
        "return [...document.querySelectorAll('#table > [data-protocol]:not([hidden])')].map((a) => a.dataset.protocol)"
    )
    assert shown == ["teacher_forced"]
    buttons[2].click()  # nothing can be scored there
    text = browser.execute_script("return document.querySelector('[data-group=retention]').textContent")
    assert "no portability prompts that can be scored" in text
    assert browser.get_log("browser") == []


def test_methods_can_be_hidden(browser: Any, page: Path) -> None:
    open_page(browser, page, 1280)
    button = browser.find_element("css selector", "#methods button")
    button.click()
    assert len(lines_drawn(browser, "Capability")) == len(METHODS) - 1
    button.click()
    assert len(lines_drawn(browser, "Capability")) == len(METHODS)


def test_pointing_at_a_chart_shows_the_numbers(browser: Any, page: Path, warehouse: Warehouse) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    open_page(browser, page, 1280)
    plot = browser.find_element("css selector", "#curve .plot")
    width = plot.size["width"]
    ActionChains(browser).move_to_element_with_offset(plot, width // 2 - 24, 0).perform()
    tip = browser.find_element("css selector", "#tip")
    assert tip.is_displayed() and tip.text.startswith("Reliability, 1,000 edits")
    (row,) = warehouse.query("SELECT reliability, reliability_n AS n FROM leaderboard WHERE label = 'FT-L'").to_pylist()
    assert f"FT-L: {100 * row['reliability']:.1f} %" in tip.text and f"n {row['n']}" in tip.text
    ActionChains(browser).move_to_element(browser.find_element("css selector", "h1")).perform()
    assert not tip.is_displayed()


def test_data_cannot_run_as_script(browser: Any, page: Path) -> None:
    open_page(browser, page, 1280)
    browser.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; });")
    assert browser.title == f"Overedit: {RUN}"
    configuration = browser.execute_script(
        "return [...document.querySelectorAll('pre')].map((a) => a.textContent).find((a) => a.includes('note'))"
    )
    assert json.loads(configuration)["note"] == "</script><script>document.title='broken'</script>"
