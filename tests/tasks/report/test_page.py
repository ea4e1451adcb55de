"""The report page as text and as data, on a made-up run."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from overedit.tasks.report.charts import chart_data
from overedit.tasks.report.data import RunData, collect
from overedit.tasks.report.files import write_files
from overedit.tasks.report.not_measured import gaps
from overedit.tasks.report.page import render_report, write_page
from overedit.tasks.warehouse.statistics import smallest_detectable_drop
from overedit.tasks.warehouse.views import view_sql
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.synthetic_run import COUNTS, METHODS, RUN, fill, identity, partition, run_row, told
from tests.support.synthetic_views import with_findings

VOID = {"meta", "link", "br", "input"}


@pytest.fixture(scope="module")
def page(synthetic: Warehouse, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reports") / "made" / "synthetic.html"
    assert write_page(collect(synthetic, RUN), path) == path
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
    assert "http" not in content.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', content)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-")


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


def test_the_charts_hold_the_views_numbers(synthetic: Warehouse, synthetic_data: RunData) -> None:
    data = chart_data(synthetic_data)
    assert data["edit_counts"] == [0, *COUNTS] and data["protocols"] == ["generated", "teacher_forced", "probability"]
    names = [line["name"] for line in data["lines"]]
    assert sorted(names) == sorted(METHODS.values())
    (chart,) = (chart for chart in data["charts"] if chart["title"] == "Reliability" and "preset" not in chart)
    series = chart["lines"]["teacher_forced"][names.index("UltraEdit")]["points"]
    rows = synthetic.query(
        "SELECT edit_count AS x, value AS y, low, high, n FROM reliability_by_edit_count "
        "WHERE label = 'UltraEdit' AND measure = 'reliability' AND protocol = 'teacher_forced' ORDER BY edit_count"
    ).to_pylist()
    assert series == rows and len(rows) == 5
    assert data["lines"][names.index("FT-L")]["collapse_at"] == 10


def test_what_the_updates_did_is_shown_where_a_method_told_it(synthetic_data: RunData, tmp_path: Path) -> None:
    titles = {"What the edits did to ordinary keys", "Size of the updates"}
    assert not titles & {chart["title"] for chart in chart_data(synthetic_data)["charts"]}
    data = chart_data(collect(told(tmp_path), RUN))
    charts = [chart for chart in data["charts"] if chart["title"] in titles]
    index = next(i for i, line in enumerate(data["lines"]) if line["name"] == "FT-L")
    assert len(charts) == 2
    for chart in charts:
        points = {series["line"]: series["points"] for series in chart["lines"]["all"]}
        assert chart["y"] == "positive"
        assert [(point["x"], point["y"]) for point in points.pop(index)] == [(count, 3.0 * count) for count in COUNTS]
        assert not any(points.values())


def test_a_long_trajectorys_speed_is_shown_in_few_points(tmp_path: Path) -> None:
    warehouse = fill(tmp_path, cases=4, by_count=False)
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


def test_gaps_are_said(synthetic_data: RunData) -> None:
    said = "\n".join(gaps(synthetic_data))
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
    page = write_page(collect(warehouse, RUN), tmp_path / "page.html").read_text(encoding="utf-8")
    assert "was not measured after any edit." in page and "&lt;NaN&gt; in the loss" in page
    files = write_files(warehouse, RUN, tmp_path / "reports", format="all")
    assert [path.name for path in files] == ["synthetic.html", "synthetic.png", "synthetic.md"]
    assert "failed" in files[-1].read_text()


def test_orderings_are_told_apart(tmp_path: Path) -> None:
    several = Warehouse(tmp_path)
    for seed in (0, 1):
        rows = [identity("locft_bf", 10, seed) | run_row("LocFT-BF")]
        several.write("runs", rows, partition=partition("locft_bf", 10) | {"order_seed": seed}, key="k")
    assert [one.name for one in collect(several, RUN).trajectories] == ["LocFT-BF (order 0)", "LocFT-BF (order 1)"]
    assert [one.color for one in collect(several, RUN).trajectories] == [0, 0]


def test_an_unknown_run_is_a_clear_error(synthetic: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"run: 'nightly' is not in .*; its runs are: synthetic"):
        write_page(collect(synthetic, "nightly"), tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


# ---- retention, checkpoints, cases


def test_the_heat_map_holds_the_views_numbers(synthetic: Warehouse, synthetic_data: RunData) -> None:
    heat = chart_data(synthetic_data)["heat"]
    assert heat["counts"] == list(COUNTS) and heat["ages"] == ["0", "1-9", "10-99", "100-999"]
    index = next(i for i, one in enumerate(synthetic_data.trajectories) if one.name == "UltraEdit")
    rows = synthetic.query(
        "SELECT age, edit_count, round(value, 6) AS value, round(low, 6) AS low, round(high, 6) AS high, n "
        "FROM retention_by_age WHERE label = 'UltraEdit' AND protocol = 'probability' ORDER BY edit_count, age_low"
    ).to_pylist()
    named = [[heat["ages"][age], heat["counts"][at], *of] for age, at, *of in heat["cells"]["probability"][index]]
    assert named == [list(row.values()) for row in rows] and len(rows) == 9


def test_a_checkpoint_is_a_point_of_perplexity_and_capability(synthetic_data: RunData) -> None:
    index = next(i for i, one in enumerate(synthetic_data.trajectories) if one.name == "FT-L")
    points = chart_data(synthetic_data)["scatter"][index]
    assert [point["count"] for point in points] == [0, *COUNTS]
    assert [point["x"] for point in points] == pytest.approx([1, 1.3, 8, 300, 5e4])
    assert points[0]["y"] == pytest.approx((0.93 + 0.97 + 0.99) / 3)


def test_a_perplexity_that_is_infinite_is_no_point(tmp_path: Path) -> None:
    warehouse = fill(tmp_path, cases=2, by_count=False)
    broken = {"corpus": "held_out", "text_id": 40, "nll": float("inf"), "num_tokens": 20}
    warehouse.write("perplexity", [identity("ft_l", 1000) | broken], partition=partition("ft_l", 1000), key="k")
    data = collect(warehouse, RUN)
    index = next(i for i, one in enumerate(data.trajectories) if one.name == "FT-L")
    assert [point["count"] for point in chart_data(data)["scatter"][index]] == [0, 1, 10, 100]


def test_cases_are_spread_over_age_and_hold_what_each_checkpoint_said(
    synthetic: Warehouse, synthetic_data: RunData
) -> None:
    cases = chart_data(synthetic_data)["cases"]
    numbers = [case["number"] for case in cases]
    assert numbers[0] == 1 and numbers[-1] == 1000 and numbers == sorted(set(numbers)) and len(numbers) == 8
    first = cases[0]
    assert [probe["title"] for probe in first["probes"]] == ["The edit", "The same in other words", "Another fact"]
    index = next(i for i, one in enumerate(synthetic_data.trajectories) if one.name == "FT-L")
    said = first["probes"][0]["after"][index]
    rows = synthetic.query(
        "SELECT edit_count, output, score = 1 AS is_right FROM outcomes WHERE method = 'ft_l' AND position = 1 "
        "AND probe = 'edit' AND protocol = 'generated' ORDER BY edit_count"
    ).to_pylist()
    assert said == {row["edit_count"]: [row["output"], row["is_right"]] for row in rows} and len(rows) == 4
    assert cases[-1]["probes"][0]["after"][index].keys() == {1000}, "it was not edited before"
    assert first["probes"][2]["before"] == [
        synthetic.query(
            "SELECT output FROM outcomes WHERE method = 'none' AND position = 1 AND probe = 'locality' "
            "AND protocol = 'generated'"
        )["output"][0].as_py(),
        True,
    ]


def test_long_texts_are_cut(tmp_path: Path) -> None:
    warehouse = fill(tmp_path, cases=2, by_count=False)
    place = {"run": RUN, "trajectory": "ft_l", "order_seed": 0}
    rows = [row | {"output": row["output"] and "word " * 1000} for row in warehouse.rows("outcomes", place)]
    warehouse.write("outcomes", rows, partition=place, key="k")
    data = collect(warehouse, RUN)
    assert max(len(row["output"]) for row in data.cases) == 161
    page = render_report(data)
    assert "word " * 31 in page and "word " * 32 not in page


# ---- what other views say


@pytest.fixture(scope="module")
def found(synthetic_data: RunData) -> RunData:
    return with_findings(synthetic_data)


FINDINGS = {
    "collapse_definitions": "Collapse by other definitions",
    "capability_change": "Against the pristine model, on the same items",
    "retention_half_life": "Half-life of an edit",
    "early_warning": "Which sign warned first",
    "probe_correlation": "How closely each sign goes with capability",
    "capability_gating": "Benchmarks only where perplexity has moved",
}


@pytest.mark.parametrize("view", FINDINGS)
def test_a_section_is_there_where_its_view_has_rows(found: RunData, view: str) -> None:
    heading = f"<h3>{FINDINGS[view]}</h3>"
    assert heading in render_report(found)
    assert heading not in render_report(replace(found, views=found.views | {view: []}))


def test_a_presets_measures_are_charts_and_tables_of_their_own(found: RunData) -> None:
    charts = chart_data(found)
    assert charts["presets"] == ["ultraedit", "memit"]
    of_memit = {chart["title"]: chart for chart in charts["charts"] if chart.get("preset") == "memit"}
    assert {title: chart["y"] for title, chart in of_memit.items()} == {
        "Score": "share",
        "Fluency": "amount",
        "Consistency": "share",
        "Text": "positive",
    }
    assert of_memit["Consistency"]["missing"] == "no <reference> texts"
    page = render_report(found)
    assert '<div data-view="preset memit"><p class="view">As in memit</p>' in page
    assert "<small>no &lt;reference&gt; texts</small>" in page


def test_the_scatters_caption_has_the_correlation_over_all_methods(found: RunData) -> None:
    said = "over all methods: -0.87 (95 %: -0.96 to -0.60), 12 checkpoints of 3 trajectories."
    assert said in render_report(found)
    assert "Spearman's correlation with" not in render_report(
        replace(found, views=found.views | {"probe_correlation": []})
    )


def test_the_range_over_real_orders_is_the_views(tmp_path: Path) -> None:
    warehouse = fill(tmp_path, cases=4, seeds=(0, 1), by_count=False)
    chart = next(one for one in chart_data(collect(warehouse, RUN))["charts"] if one["title"] == "Locality")
    (band,) = (one for one in chart["orders"]["generated"] if one["name"] == "UltraEdit")
    rows = warehouse.query(
        "SELECT min(value) AS lowest, max(value) AS highest FROM reliability_by_edit_count WHERE label = 'UltraEdit' "
        "AND protocol = 'generated' AND measure = 'locality' GROUP BY edit_count ORDER BY edit_count"
    ).to_pylist()
    assert [(p["low"], p["high"]) for p in band["points"]] == [(row["lowest"], row["highest"]) for row in rows]


def test_the_range_over_orders_stands_for_the_lines_of_one_trajectory(tmp_path: Path) -> None:
    data = with_findings(collect(fill(tmp_path, cases=2, seeds=(0, 1), by_count=False), RUN))
    charts = chart_data(data)
    assert charts["has_orders"] and [line["order"] for line in charts["lines"]].count(1) == 3
    (chart,) = (chart for chart in charts["charts"] if chart["title"] == "Capability")
    (band,) = (band for band in chart["orders"]["all"] if band["name"] == "FT-L")
    assert {charts["lines"][index]["name"] for index in band["members"]} == {"FT-L (order 0)", "FT-L (order 1)"}
    assert [(p["y"], p["low"], p["high"], p["n"]) for p in band["points"][:1]] == [(0.9, 0.9 - 0.05, 0.9 + 0.04, 2)]
    assert "2 orders of the edits were tried" in "\n".join(gaps(data))


def test_a_case_of_the_same_name_with_another_new_fact_is_another_case(tmp_path: Path) -> None:
    data = collect(fill(tmp_path, counts=(1, 20), seeds=(0, 1), by_count=False), RUN)
    facts: dict[str, set[str]] = {}
    for row in data.cases:
        if row["probe"] == "edit":
            facts.setdefault(row["case_id"], set()).add(row["target"])
    assert facts and all(len(targets) == 1 for targets in facts.values())


def test_what_the_configuration_left_out_is_said(synthetic_data: RunData) -> None:
    config = {"capability": {"limit": 50, "when": "gated", "gate_ratio": 1.05}, "perplexity": {"limit": 200}}
    said = "\n".join(gaps(replace(synthetic_data, runs=[synthetic_data.runs[0] | {"config": json.dumps(config)}])))
    assert "Of each general benchmark only the first 50 items were asked." in said
    assert "were skipped where perplexity stayed at its level (in steps of 1.05 times" in said
    points = 100 * (smallest_detectable_drop(600) or 0)
    assert f"A loss of general ability of less than {points:.1f} points of all 600 items" in said
    assert "the first 200 texts" in said


def test_the_stages_of_a_trajectory_are_a_bar(synthetic_data: RunData) -> None:
    page = render_report(synthetic_data)
    bars = re.findall(r'<span class="bar">(.*?)</span>', page)
    widths = [sum(float(width) for width in re.findall(r"width:([\d.]+)%", bar)) for bar in bars]
    # 0.08 s x (1 + 10 + 100 + 1000), 0.02 x 1000 and 0.3 x 1000, with four swaps of 0.02 s each
    longest = 300.08
    assert widths == pytest.approx([100 * seconds / longest for seconds in (88.96, 20.08, 300.08)], abs=0.02)


def test_a_large_run_has_a_small_page(tmp_path: Path) -> None:
    counts = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 3000, 10_000)
    warehouse = fill(tmp_path, methods=10, counts=counts, cases=12, by_count=False)
    data = with_findings(collect(warehouse, RUN))
    page = render_report(data)
    assert len(data.trajectories) == 10 and len(data.edit_counts) == 13
    assert len({one.color for one in data.trajectories}) == 10
    assert len(page.encode()) < 5_000_000
