"""Two runs side by side, against numbers worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from overedit.tasks.report.comparison.compare import Comparison, compare
from overedit.tasks.report.comparison.differences import Difference
from overedit.tasks.report.comparison.rendering import comparison_json, comparison_markdown, comparison_table
from overedit.tasks.report.comparison.settings import Setting
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.synthetic_run import run_row
from tests.support.two_runs import fill_two, identity, outcome, write

Z = 1.959963984540054


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return fill_two(tmp_path)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Of the two as they are."""
    return compare(fill_two(tmp_path_factory.mktemp("two")), "before", "after")


def found(comparison: Comparison) -> dict[str, Difference]:
    return {one.point.measure: one for one in comparison.differences}


def numbers(one: Difference) -> tuple[float | None, ...]:
    return (one.first, one.second, one.difference, one.low, one.high, one.n, one.p_value)


def test_answers_to_the_same_prompts_are_paired(comparison: Comparison) -> None:
    one = found(comparison)["reliability"]
    assert one.point == ("FT-L", 10, "outcome", "reliability")
    assert numbers(one) == pytest.approx((0.8, 0.5, -0.3, -0.62424, 0.12424, 10, 0.375), abs=5e-6)


def test_items_of_benchmarks_are_paired_and_their_mean_weighs_tasks_alike(comparison: Comparison) -> None:
    differences = found(comparison)
    half = {"x": Z * math.sqrt(11 / 36 / 6), "y": Z * math.sqrt(7 / 16 / 4)}
    x, y = (-1 / 6, half["x"]), (1 / 4, half["y"])
    assert numbers(differences["x"]) == pytest.approx((0.5, 0.25, -0.25, x[0] - x[1], x[0] + x[1], 4, 1.0))
    assert numbers(differences["y"]) == pytest.approx((0.5, 1.0, 0.5, y[0] - y[1], y[0] + y[1], 2, 1.0))
    of_mean = math.hypot(*half.values()) / 2
    mean = (0.5, 0.625, 0.125, 0.125 - of_mean, 0.125 + of_mean, 6, 1.0)
    assert numbers(differences["mean"]) == pytest.approx(mean)


def test_perplexities_of_the_same_texts_are_a_ratio(comparison: Comparison) -> None:
    one = found(comparison)["texts"]
    ends = (math.exp(0.1 - 0.1 * Z), math.exp(0.1 + 0.1 * Z))
    assert numbers(one) == pytest.approx((math.exp(1.5), math.exp(1.6), math.exp(0.1), *ends, 2, 1.0))


def test_p_values_are_adjusted_over_all_differences(warehouse: Warehouse) -> None:
    comparison = compare(warehouse, "before", "after")
    assert len(comparison.differences) == 5
    # 0.375, and four times 1
    assert [one.p_adjusted for one in comparison.differences] == pytest.approx([1.0] * 5)
    write(warehouse, "outcomes", [outcome("before", case, 1.0) for case in range(10)])
    write(warehouse, "outcomes", [outcome("after", case, 0.0) for case in range(10)])
    one = found(compare(warehouse, "before", "after"))["reliability"]
    assert (one.p_value, one.p_adjusted) == pytest.approx((2 / 1024, 5 * 2 / 1024))


def test_other_questions_are_not_paired(warehouse: Warehouse) -> None:
    """Newcombe's own example (1998, Table II a): 56 of 70 against 48 of 80."""
    write(warehouse, "outcomes", [outcome("before", case, float(case < 48)) for case in range(80)])
    other = [outcome("after", case, float(case < 56), prompt=f"Another {case}") for case in range(70)]
    write(warehouse, "outcomes", other)
    one = found(compare(warehouse, "before", "after"))["reliability"]
    assert (one.first, one.second, one.difference) == pytest.approx((48 / 80, 56 / 70, 0.2))
    assert (one.low, one.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert one.n is None and one.p_value is not None and 0.001 < one.p_value < 0.05


@pytest.mark.parametrize("change", [{"target": "Town"}, {"case_id": "other"}, {"probe_index": 1}])
def test_what_makes_a_question_another_one(warehouse: Warehouse, change: dict[str, object]) -> None:
    write(warehouse, "outcomes", [outcome("after", case, 1.0) | change for case in range(10)])
    assert found(compare(warehouse, "before", "after"))["reliability"].n is None


def test_few_pairs_of_many_questions_are_not_taken_for_all(warehouse: Warehouse) -> None:
    write(warehouse, "outcomes", [outcome("after", case, 1.0) for case in range(6, 16)])
    one = found(compare(warehouse, "before", "after"))["reliability"]
    assert one.n is None and one.second == 1.0
    write(warehouse, "outcomes", [outcome("after", case, 1.0) for case in range(5, 15)])
    one = found(compare(warehouse, "before", "after"))["reliability"]
    assert (one.n, one.first, one.second) == (5, pytest.approx(0.6), 1.0), "over the pairs alone"


def test_locality_is_agreement_and_what_has_no_score_is_left_out(warehouse: Warehouse) -> None:
    for run, agreement in (("before", 1.0), ("after", 0.0)):
        rows = [
            outcome(run, case, 0.0, probe="locality", agreement=agreement if case else None, reason="none")
            for case in range(10)
        ]
        write(warehouse, "outcomes", rows, part="locality")
    one = found(compare(warehouse, "before", "after"))["locality"]
    assert (one.first, one.second, one.n) == (1.0, 0.0, 9)


def test_a_perplexity_that_is_infinite_has_no_difference(warehouse: Warehouse) -> None:
    text = {"corpus": "texts", "text_id": 0, "nll": math.inf, "num_tokens": 10}
    write(warehouse, "perplexity", [identity("after") | text])
    comparison = compare(warehouse, "before", "after")
    assert numbers(found(comparison)["texts"])[1:] == (math.inf, None, None, None, None, None)
    (record,) = (one for one in json.loads(comparison_json(comparison))["differences"] if one["measure"] == "texts")
    assert (record["second"], record["difference"], record["p_adjusted"]) == (None, None, None)
    assert "| FT-L | 10 | perplexity: texts ~ | 4.48 | inf | - | - | - |" in comparison_markdown(comparison)


def test_settings_that_differ(comparison: Comparison) -> None:
    assert comparison.settings == [
        Setting("turn_size", "1", "5"),
        Setting("FT-L.norm", "0.1", "0.2"),
        Setting("FT-L.new", None, "null"),
    ]


def test_collapse_and_what_only_one_run_has(warehouse: Warehouse) -> None:
    more = identity("after", trajectory="ultraedit", method="ultraedit")
    write(warehouse, "runs", [more | run_row("UltraEdit")], part="other")
    comparison = compare(warehouse, "before", "after")
    # 25 and 100 % of two benchmarks without chance are more than 80 % of nothing known: no pristine model, no collapse
    assert [one.name for one in comparison.collapses] == ["FT-L"]
    assert (comparison.only_first, comparison.only_second) == ([], ["UltraEdit"])
    assert "Only after has UltraEdit." in comparison_markdown(comparison)


def test_orders_of_the_edits_stand_beside_their_own(warehouse: Warehouse) -> None:
    for seed in (1, 2):
        run = "before" if seed == 1 else "after"
        rows = [identity(run, order_seed=seed) | run_row("FT-L")]
        write(warehouse, "runs", rows, part="other")
    comparison = compare(warehouse, "before", "after")
    assert {one.point.name for one in comparison.differences} == {"FT-L (order 0)"}
    assert comparison.only_first == ["FT-L (order 1)"] and comparison.only_second == ["FT-L (order 2)"]


def test_one_order_each_is_compared_whatever_its_seed(warehouse: Warehouse, tmp_path: Path) -> None:
    for table in ("runs", "outcomes"):
        rows = [row | {"order_seed": 7, "run": "third"} for row in warehouse.rows(table, {"run": "after"})]
        write(warehouse, table, rows)
    assert found(compare(warehouse, "before", "third"))["reliability"].n == 10


def test_a_run_that_has_not_ended_is_compared_and_its_settings_are_not(warehouse: Warehouse) -> None:
    rows = [row | {"run": "going"} for row in warehouse.rows("outcomes", {"run": "after"})]
    write(warehouse, "outcomes", rows)
    write(warehouse, "costs", [identity("going") | {"stage": "edit", "seconds": 1.0, "num_items": 1}])
    write(warehouse, "runs", [row | {"label": "ft_l"} for row in warehouse.rows("runs", {"run": "before"})])
    comparison = compare(warehouse, "before", "going")
    assert comparison.unfinished == ["going"] and comparison.settings == []
    assert "The settings of going are not stored yet" in comparison_markdown(comparison)


@pytest.mark.parametrize(
    ("runs", "protocol", "said"),
    [
        (("before", "before"), "generated", "'before' is given twice; name two runs"),
        (("before", "now"), "generated", r"run: 'now' is not in .*; its runs are: after, before"),
        (("now", "before"), "generated", r"run: 'now' is not in "),
        (("before", "after"), "typed", "protocol: 'typed' is unknown; choose one of generated, teacher_forced, prob"),
    ],
)
def test_what_cannot_be_compared_is_said(warehouse: Warehouse, runs: tuple[str, str], protocol: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compare(warehouse, *runs, protocol=protocol)


def test_runs_with_nothing_in_common_say_what_they_have(warehouse: Warehouse) -> None:
    other = identity("other", trajectory="rome", method="rome", edit_count=1000)
    write(warehouse, "runs", [other | run_row("ROME")])
    write(warehouse, "outcomes", [outcome("other", 1, 1.0) | other])
    with pytest.raises(ValueError, match=r"in common: before has FT-L at 10 edits\. other has ROME at 1,000 edits"):
        compare(warehouse, "before", "other")


def test_the_table_fits_a_terminal(comparison: Comparison) -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(comparison_table(comparison))
    text = capture.get()
    assert max(len(line) for line in text.splitlines()) <= 80 and "…" not in text
    assert "A: before" in text and "turn_size" in text
    (row,) = (line for line in text.splitlines() if "rel." in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        *("FT-L", "10", "rel.", "80.0", "50.0", "-30.0", "-62.4 +12.4", "1.000"),
    ]
    assert "x" not in {cell.strip() for line in text.splitlines() for cell in line.split("│")}, (
        "the mean stands for all"
    )


def test_the_comparison_as_markdown(comparison: Comparison) -> None:
    text = comparison_markdown(comparison)
    assert "| FT-L | 10 | reliability | 80.0 | 50.0 | -30.0 | -62.4 +12.4 | 1.000 |" in text
    assert "| FT-L | 10 | capability: x | 50.0 | 25.0 | -25.0 |" in text
    assert "| FT-L | 10 | perplexity: texts | 4.48 | 4.95 | ×1.11 | ×0.908 ×1.34 | 1.000 |" in text
    assert "| FT-L.norm | 0.1 | 0.2 |" in text


def test_the_comparison_as_json_is_in_full(comparison: Comparison) -> None:
    content = json.loads(comparison_json(comparison))
    (record,) = (one for one in content["differences"] if one["measure"] == "reliability")
    assert record == {
        "name": "FT-L",
        "edit_count": 10,
        "kind": "outcome",
        "measure": "reliability",
        "first": 0.8,
        "second": 0.5,
        "difference": -0.3,
        "low": pytest.approx(-0.62424, abs=5e-6),
        "high": pytest.approx(0.12424, abs=5e-6),
        "n": 10,
        "p_value": pytest.approx(0.375),
        "p_adjusted": 1.0,
        "is_paired": True,
    }
    assert content["collapses"][0]["name"] == "FT-L"
