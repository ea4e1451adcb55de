"""The report page in a real browser: every control is used, at both widths, and nothing is asked of any network.

Without a browser these tests are skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from overedit.tasks.report.data import RunData, collect
from overedit.tasks.report.page import render_report, write_page
from overedit.tasks.report.queries import FURTHER_VIEWS
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.browser import asked_for, bring, forget, is_within_the_page, set_screen, text_of
from tests.support.synthetic_run import COUNTS, METHODS, RUN, fill, told
from tests.support.synthetic_views import PRESETS, with_findings


@pytest.fixture(scope="module")
def page(synthetic_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(synthetic_data, tmp_path_factory.mktemp("reports") / "synthetic.html")


@pytest.fixture(scope="module")
def full_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two orders of the edits, presets, and rows in every view: each control is there."""
    folder = tmp_path_factory.mktemp("full")
    data = collect(fill(folder / "warehouse", cases=20, seeds=(0, 1), by_count=False), RUN)
    path = folder / "full.html"
    path.write_text(render_report(with_findings(data)), encoding="utf-8")
    return path


@pytest.fixture
def browser(chromium: Any) -> Iterator[Any]:
    """The browser; whatever a test does, the page says nothing on its console and asks for nothing but itself."""
    forget(chromium)
    yield chromium
    assert chromium.get_log("browser") == []
    asked = asked_for(chromium)
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert len({url for url in asked if url.startswith("file:")}) <= 1


def open_page(browser: Any, page: Path, width: int = 1280, theme: str = "light") -> None:
    set_screen(browser, width, theme)
    browser.get(page.as_uri())


FIGURE = (
    "const figure = [...document.querySelectorAll('figure')]"
    ".find((one) => one.querySelector('h3').textContent === arguments[0] && !one.hidden);"
)


def drawn(browser: Any, title: str, kind: str = "curve") -> list[str]:
    """The paths of a chart's lines, or of its bands."""
    script = f"{FIGURE} return [...figure.querySelectorAll('path.{kind}')].map((path) => path.getAttribute('d'));"
    return list(browser.execute_script(script, title))


def titles(browser: Any, group: str) -> list[str]:
    script = (
        "return [...document.querySelectorAll(`[data-group=${arguments[0]}] figure:not([hidden]) h3`)]"
        ".map((one) => one.textContent)"
    )
    return list(browser.execute_script(script, group))


def press(browser: Any, group: str, name: str) -> Any:
    buttons = browser.find_elements("css selector", f"#{group} button")
    (button,) = (button for button in buttons if button.text == name)
    button.click()
    return button


def pressed(browser: Any, group: str) -> list[str]:
    return [button.text for button in browser.find_elements("css selector", f"#{group} button[aria-pressed=true]")]


def views_shown(browser: Any, section: str) -> set[str]:
    """The protocols or presets whose tables a section shows."""
    script = (
        "return [...document.querySelectorAll(`#${arguments[0]} [data-view]:not([hidden])`)].map((a) => a.dataset.view)"
    )
    return set(browser.execute_script(script, section))


# ---- the page as it opens


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_the_page_opens(browser: Any, full_page: Path, width: int, theme: str) -> None:
    open_page(browser, full_page, width, theme)
    assert browser.title == f"Overedit: {RUN}"
    assert len(drawn(browser, "Reliability")) == 2 * len(METHODS)
    assert is_within_the_page(browser)
    browser.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; });")
    assert is_within_the_page(browser), "not with everything unfolded either"
    colors = browser.execute_script(
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    ink, paper = (sum(map(int, re.findall(r"\d+", color)[:3])) for color in colors)
    assert (ink > paper) == (theme == "dark")


def test_a_page_without_further_views(browser: Any, synthetic_data: RunData, tmp_path: Path) -> None:
    views = synthetic_data.views | {view: [] for view in FURTHER_VIEWS}
    open_page(browser, write_page(replace(synthetic_data, views=views), tmp_path / "page.html"))
    assert browser.execute_script("return document.querySelectorAll('figure:not([hidden]) svg').length") == 14
    assert browser.find_elements("css selector", "#presets button") == []
    assert pressed(browser, "bands") == ["95 % of items"]
    assert [one.text for one in browser.find_elements("css selector", "#bands button")] == ["95 % of items", "none"]


def test_a_run_of_which_little_is_there(browser: Any, tmp_path: Path) -> None:
    """Only one checkpoint's costs: no case, no age, no checkpoint with a capability."""
    warehouse = Warehouse(tmp_path / "warehouse")
    row = {"run": RUN, "trajectory": "ft_l", "model": "m", "method": "ft_l", "dataset": "d", "order_seed": 0}
    cost = {"edit_count": 1, "stage": "edit", "seconds": 1.0, "num_items": 1}
    warehouse.write("costs", [row | cost], partition={"run": RUN}, key="k")
    open_page(browser, write_page(collect(warehouse, RUN), tmp_path / "page.html"))
    assert browser.find_elements("css selector", "#heat, #scatter, #cases") == []
    assert len(drawn(browser, "Seconds an edit")) == 1


def test_the_updates(browser: Any, tmp_path: Path) -> None:
    open_page(browser, write_page(collect(told(tmp_path / "warehouse"), RUN), tmp_path / "page.html"))
    (path,) = (line for line in drawn(browser, "What the edits did to ordinary keys") if line)
    assert re.fullmatch(r"M[\d. ]+(L[\d. ]+){3}", path)


def test_without_scripts_the_tables_stay(browser: Any, full_page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        open_page(browser, full_page)
        shown = {
            name: browser.find_element("css selector", selector).is_displayed()
            for name, selector in {
                "table": "#table table",
                "preset": '#table [data-view="preset memit"] table',
                "verdict": ".verdicts li",
                "note": "noscript p",
                "controls": ".controls",
                "heat map": "#heat",
                "cases": "#cases",
            }.items()
        }
        assert [name for name, is_there in shown.items() if is_there] == ["table", "preset", "verdict", "note"]
        browser.find_element("css selector", "#samples summary").click()
        assert browser.find_element("css selector", "#samples table").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_data_cannot_run_as_script(browser: Any, page: Path) -> None:
    open_page(browser, page)
    browser.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; });")
    assert browser.title == f"Overedit: {RUN}"
    configuration = browser.execute_script(
        "return [...document.querySelectorAll('pre')].map((a) => a.textContent).find((a) => a.includes('note'))"
    )
    assert json.loads(configuration)["note"] == "</script><script>document.title='broken'</script>"


def test_the_pages_policy_lets_no_other_script_run_and_nothing_load(chromium: Any, page: Path) -> None:
    open_page(chromium, page)
    chromium.execute_script(
        "const made = document.createElement('script'); made.textContent = \"document.title = 'broken'\";"
        "document.body.append(made);"
        "const picture = new Image(); picture.src = 'https://localhost:1/x.png'; document.body.append(picture);"
    )
    assert chromium.title == f"Overedit: {RUN}"
    said = "\n".join(entry["message"] for entry in chromium.get_log("browser"))
    assert "script-src" in said and "img-src" in said and said.count("Content Security Policy") == 2


# ---- the controls


def test_the_protocol_switch(browser: Any, page: Path) -> None:
    open_page(browser, page)
    before, capability = drawn(browser, "Reliability"), drawn(browser, "Capability")
    assert pressed(browser, "protocols") == ["generated"]
    press(browser, "protocols", "teacher forced")
    assert drawn(browser, "Reliability") != before and drawn(browser, "Capability") == capability
    assert pressed(browser, "protocols") == ["teacher forced"]
    assert views_shown(browser, "table") == views_shown(browser, "retention") == {"teacher_forced"}
    press(browser, "protocols", "probability")  # nothing can be scored there
    assert "no portability prompts that can be scored" in text_of(browser, "[data-group=retention]")
    press(browser, "protocols", "generated")
    assert drawn(browser, "Reliability") == before


def test_a_preset_shows_its_own_measures(browser: Any, full_page: Path) -> None:
    open_page(browser, full_page)
    press(browser, "protocols", "teacher forced")
    for preset, measures in PRESETS.items():
        press(browser, "presets", preset)
        assert titles(browser, "curve") == [*(name.capitalize() for name in measures), "Capability"]
        assert pressed(browser, "presets") == [preset] and pressed(browser, "protocols") == []
        assert views_shown(browser, "table") == {f"preset {preset}"}
        assert views_shown(browser, "retention") == {"teacher_forced"}, "what a preset does not score stays"
    assert "no <reference> texts" in text_of(browser, "[data-group=curve]")
    assert all(drawn(browser, "Fluency"))
    press(browser, "protocols", "generated")
    assert titles(browser, "curve") == ["Reliability", "Generalization", "Locality", "Capability"]
    assert pressed(browser, "presets") == [] and views_shown(browser, "table") == {"generated"}


def test_methods_can_be_hidden_shown_alone_and_all_at_once(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    open_page(browser, page)
    button = press(browser, "methods", "FT-L")
    assert len(drawn(browser, "Capability")) == 2 and pressed(browser, "methods") == ["LocFT-BF", "UltraEdit"]
    assert len(browser.find_elements("css selector", "#scatter .track")) == 2
    assert "FT-L" not in text_of(browser, "#cases .cards")
    button.click()
    assert len(drawn(browser, "Capability")) == 3
    ActionChains(browser).double_click(button).perform()
    assert pressed(browser, "methods") == ["FT-L"] and len(drawn(browser, "Capability")) == 1
    ActionChains(browser).double_click(button).perform()
    assert len(pressed(browser, "methods")) == 3
    press(browser, "methods", "none")
    assert pressed(browser, "methods") == [] and drawn(browser, "Capability") == []
    assert "no method is chosen" in text_of(browser, "[data-group=curve]") + text_of(browser, "#scatter")
    press(browser, "methods", "all")
    assert len(drawn(browser, "Capability")) == len(browser.find_elements("css selector", "#scatter .track")) == 3


def test_the_axes_are_logarithmic_or_linear(browser: Any, page: Path) -> None:
    def places(title: str) -> list[list[float]]:
        return [[float(x) for x in re.findall(r"[ML]([\d.]+) ", path)] for path in drawn(browser, title)]

    open_page(browser, page)
    axis = "[data-group=curve] figure svg"
    log, reliability, perplexity = places("Reliability"), drawn(browser, "Reliability"), drawn(browser, "Perplexity")
    steps = [second - first for first, second in zip(log[0], log[0][1:], strict=False)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2), "a step is ten times the edits"
    press(browser, "edits", "linear")
    one, ten, hundred, thousand = places("Reliability")[0]
    assert (thousand - hundred) / (hundred - ten) == pytest.approx(10, rel=0.02) and ten - one < 5
    assert "base" in perplexity or "750" in browser.execute_script(
        f"return document.querySelector('{axis}').textContent"
    )
    press(browser, "edits", "log")
    assert drawn(browser, "Reliability") == reliability
    press(browser, "values", "linear")
    assert drawn(browser, "Perplexity") != perplexity and drawn(browser, "Reliability") == reliability
    heights = [float(y) for y in re.findall(r" ([\d.]+)", drawn(browser, "Perplexity")[-1])]
    assert heights[0] - heights[2] < 1, "300 times the base is next to nothing beside 50,000 times"
    press(browser, "values", "log")
    assert drawn(browser, "Perplexity") == perplexity


def test_bands_are_of_items_or_of_orders_or_none(browser: Any, full_page: Path) -> None:
    open_page(browser, full_page)
    assert len(drawn(browser, "Reliability", "band")) == len(drawn(browser, "Reliability")) == 6
    press(browser, "bands", "range over orders")
    assert len(drawn(browser, "Reliability", "band")) == len(drawn(browser, "Reliability")) == 3
    assert len(drawn(browser, "Locality")) == 6, "that measure has no range"
    bring(browser, browser.find_element("css selector", "[data-group=curve] .plot")).click()
    assert "LocFT-BF: " in text_of(browser, "#tip") and "2 orders" in text_of(browser, "#tip")
    press(browser, "methods", "LocFT-BF (order 0)")
    assert len(drawn(browser, "Reliability")) == 3, "the other order is still shown"
    press(browser, "methods", "LocFT-BF (order 1)")
    assert len(drawn(browser, "Reliability")) == 2
    press(browser, "bands", "none")
    assert drawn(browser, "Reliability", "band") == [] and len(drawn(browser, "Reliability")) == 4


def test_pointing_at_a_chart_shows_the_numbers(browser: Any, page: Path, synthetic: Warehouse) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    open_page(browser, page)
    plot = bring(browser, browser.find_element("css selector", "#curve .plot"))
    width = plot.size["width"]
    ActionChains(browser).move_to_element_with_offset(plot, width // 2 - 24, 0).perform()
    tip = browser.find_element("css selector", "#tip")
    assert tip.is_displayed() and tip.text.startswith("Reliability, 1,000 edits")
    (row,) = synthetic.query("SELECT reliability, reliability_n AS n FROM leaderboard WHERE label = 'FT-L'").to_pylist()
    assert f"FT-L: {100 * row['reliability']:.1f} %" in tip.text and f"n {row['n']}" in tip.text
    ActionChains(browser).move_to_element(browser.find_element("css selector", "h1")).perform()
    assert not tip.is_displayed()


def test_every_chart_can_be_read_with_the_keyboard(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    open_page(browser, page)
    tip = browser.find_element("css selector", "#tip")
    plots = browser.find_elements("css selector", "figure:not([hidden]) .plot")
    assert len(plots) == 14
    for plot in plots:
        browser.execute_script("arguments[0].focus();", plot)
        bring(browser, plot)
        for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT):
            plot.send_keys(key)
            assert tip.is_displayed() and "LocFT-BF" in tip.text
        plot.send_keys(Keys.ESCAPE)
        assert not tip.is_displayed()


def test_the_heat_map(browser: Any, page: Path, synthetic: Warehouse) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.select import Select

    open_page(browser, page)
    choice = Select(browser.find_element("css selector", "#heat-method"))
    assert sorted(option.text for option in choice.options) == sorted(METHODS.values())
    for protocol in ("generated", "teacher_forced"):
        press(browser, "protocols", protocol.replace("_", " "))
        choice.select_by_visible_text("FT-L")
        rows = synthetic.query(
            f"SELECT value, n FROM retention_by_age WHERE label = 'FT-L' AND protocol = '{protocol}' "
            "ORDER BY edit_count, age_low"
        ).to_pylist()
        cells = browser.find_elements("css selector", "#heat rect.cell")
        fills = [cell.get_attribute("fill") for cell in cells]
        assert len(cells) == len(rows)
        same = {row["value"]: fill for row, fill in zip(rows, fills, strict=True)}
        assert [same[row["value"]] for row in rows] == fills, "one value, one colour"
        ActionChains(browser).move_to_element(bring(browser, cells[-1])).perform()
        said = text_of(browser, "#tip")
        assert "After 1,000 edits, 100-999 edits ago" in said
        assert f"FT-L: {100 * rows[-1]['value']:.1f} %" in said and f"n {rows[-1]['n']}" in said
    before = fills
    choice.select_by_visible_text("LocFT-BF")
    assert [c.get_attribute("fill") for c in browser.find_elements("css selector", "#heat rect.cell")] != before
    browser.find_element("css selector", "#retention summary").click()
    (shown,) = (
        one for one in browser.find_elements("css selector", "#retention details [data-view]") if one.is_displayed()
    )
    assert f"{100 * rows[-1]['value']:.1f}" in shown.text and "Teacher-forced protocol" in shown.text


def test_the_scatter(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    open_page(browser, page)
    points = browser.find_elements("css selector", "#scatter .checkpoint")
    assert len(points) == len(METHODS) * (1 + len(COUNTS))
    ActionChains(browser).move_to_element(bring(browser, points[-1])).perform()
    said = text_of(browser, "#tip")
    assert said.startswith("FT-L, 1,000 edits") and "Perplexity × 50,000" in said and "Capability 28.6 %" in said


def test_a_case_is_followed_from_before_editing_to_the_last_count(
    browser: Any, page: Path, synthetic: Warehouse
) -> None:
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select

    open_page(browser, page)
    choice = Select(browser.find_element("css selector", "#case"))
    assert len(choice.options) == 8 and choice.options[0].text == "Edit 1: The <b>capital</b> of country 1 & co is"
    assert text_of(browser, "#count-name") == "after 1,000 edits"
    slider = browser.find_element("css selector", "#count")
    slider.send_keys(Keys.HOME)
    assert text_of(browser, "#count-name") == "before editing"
    assert text_of(browser, "#cases .cards").count("Pristine model") == 3
    for count in COUNTS:
        browser.find_element("css selector", "#more").click()
        assert text_of(browser, "#count-name") == f"after {count:,} edit{'' if count == 1 else 's'}"
        rows = synthetic.query(
            f"SELECT output, score = 1 AS is_right FROM outcomes WHERE method = 'ft_l' AND edit_count = {count} "
            "AND position = 1 AND probe = 'edit' AND protocol = 'generated'"
        ).to_pylist()
        script = "return [...document.querySelectorAll('.case:first-child dd')].at(-1).innerText"
        mark = "✓" if rows[0]["is_right"] else "✗"
        assert browser.execute_script(script) == f"{rows[0]['output'] or 'empty'} {mark}"
    browser.find_element("css selector", "#fewer").click()
    choice.select_by_index(7)
    assert text_of(browser, "#count-name") == "after 100 edits"
    assert text_of(browser, "#cases .cards").count("not edited yet") == 3 * len(METHODS)
    slider.send_keys(Keys.END)
    assert "not edited yet" not in text_of(browser, "#cases .cards")
    titles = [one.text for one in browser.find_elements("css selector", ".case h3")]
    assert titles == ["The edit", "The same in other words", "Another fact"]


def test_everything_that_is_folded_unfolds(browser: Any, full_page: Path) -> None:
    open_page(browser, full_page)
    folded = browser.find_elements("css selector", "details")
    assert len(folded) >= 7
    for one in folded:
        one.find_element("css selector", "summary").click()
        inside = [part for part in one.find_elements("css selector", "table, pre") if part.is_displayed()]
        assert inside, one.find_element("css selector", "summary").text
