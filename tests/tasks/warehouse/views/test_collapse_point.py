"""The view of where a trajectory collapsed, on rows whose results were worked out by hand."""

from __future__ import annotations

import math

import pytest

from overedit.tasks.runs.records import diagnostics
from tests.support.view_bench import BASE, Bench, answers, at, capabilities, texts


def test_no_collapse_is_a_row_with_null(bench: Bench) -> None:
    bench.put("capability", capabilities(BASE, a=0.9) + capabilities(at(10), a=0.9) + capabilities(at(100), a=0.85))
    row = bench.one("collapse_point")
    assert (row["collapse_at"], row["reason"], row["detail"]) == (None, None, None)
    assert (row["measured_up_to"], row["planned_edit_count"], row["status"]) == (100, 100, "completed")


def test_nothing_measured_is_a_row_too(bench: Bench) -> None:
    bench.put("runs", [at(50, trajectory="broken") | {"label": "B", "status": "failed", "error": "NaN in the loss"}])
    row = bench.one("collapse_point", "trajectory = 'broken'")
    assert (row["collapse_at"], row["measured_up_to"], row["status"]) == (None, None, "failed")
    assert row["error"] == "NaN in the loss"


def test_collapse_by_capability_asks_the_upper_bound(bench: Bench) -> None:
    # base 0.9: the limit is 0.72. With half of Wilson's width 0.65 is at most 0.7417 (no), 0.60 at most 0.6943
    bench.put("capability", capabilities(BASE, a=0.9) + capabilities(at(10), a=0.65) + capabilities(at(100), a=0.6))
    row = bench.one("collapse_point")
    assert (row["collapse_at"], row["reason"], row["capability_at"], row["perplexity_at"]) == (
        100,
        "capability",
        100,
        None,
    )
    assert row["detail"] == "capability 60.0 % (at most 69.4 %), 90.0 % before editing, chance 0.0 %"


def test_collapse_by_capability_subtracts_chance(bench: Bench) -> None:
    # 0.65 against 0.9 at chance 0.5: the limit is 0.5 + 0.8 * 0.4 = 0.82, and 0.65 -> at most 0.7417
    rows = capabilities(BASE, a=0.9) + capabilities(at(10), a=0.65)
    bench.put("capability", [row | {"chance": 0.5} for row in rows])
    assert bench.one("collapse_point")["collapse_at"] == 10


def test_no_verdict_where_the_base_is_not_above_chance(bench: Bench) -> None:
    rows = capabilities(BASE, a=0.5) + capabilities(at(10), a=0.1)
    bench.put("capability", [row | {"chance": 0.5} for row in rows])
    assert bench.one("collapse_point")["collapse_at"] is None


@pytest.mark.parametrize(("nll", "collapse_at"), [(32.9, None), (33.1, 10), (math.nan, 10), (1e6, 10)])
def test_collapse_by_perplexity(bench: Bench, nll: float, collapse_at: int | None) -> None:
    bench.put("perplexity", texts(BASE, 10.0) + texts(at(10), nll))  # ten times: exp(1.0 + 2.3026)
    row = bench.one("collapse_point")
    assert (row["collapse_at"], row["reason"]) == (collapse_at, "perplexity" if collapse_at else None)


@pytest.mark.parametrize(("empty", "collapse_at"), [(2, None), (3, 10)])
def test_collapse_by_empty_outputs(bench: Bench, empty: int, collapse_at: int | None) -> None:
    rows = answers(at(10), "portability", [None] * 4, reason="score: none")
    bench.put("outcomes", [row | {"output": "" if i < empty else "word"} for i, row in enumerate(rows)])
    assert bench.one("collapse_point")["empty_at"] == collapse_at


def test_collapse_by_reliability_is_against_its_best(bench: Bench) -> None:
    bench.put("outcomes", answers(BASE, "edit", [0.0] * 10, output="x"))
    bench.put("outcomes", answers(at(10), "edit", [1.0] * 8 + [0.0] * 2, output="x"))  # 0.8: half is 0.4
    bench.put("outcomes", answers(at(50), "edit", [1.0] * 15 + [0.0] * 35, output="x"))  # 0.3, at most 0.4375: not sure
    bench.put("outcomes", answers(at(100), "edit", [1.0] * 25 + [0.0] * 75, output="x"))  # 0.25, at most 0.3430
    row = bench.one("collapse_point")
    assert (row["collapse_at"], row["reason"], row["reliability_at"]) == (100, "reliability", 100)
    assert row["detail"] == "reliability 25.0 % (at most 34.3 %), best 80.0 %"


def test_collapse_by_weights_names_the_turn(bench: Bench) -> None:
    bench.put("perplexity", texts(BASE, 10.0) + texts(at(5), 11.0))
    logs = [
        {"first": 6, "last": 8, "finite": True, "loss": 0.5},
        {"first": 9, "last": 10, "finite": False, "loss": 9.0},
    ]
    bench.put("diagnostics", [at(10) | row for row in diagnostics(logs)])
    row = bench.one("collapse_point")
    assert (row["collapse_at"], row["reason"], row["weights_at"], row["measured_up_to"]) == (10, "weights", 10, 10)
    assert row["detail"] == "weights that are not finite, after the turn of edits 9 to 10"


def test_the_first_criterion_decides_and_ties_are_named(bench: Bench) -> None:
    bench.put("capability", capabilities(BASE, a=0.9) + capabilities(at(10), a=0.1) + capabilities(at(100), a=0.1))
    bench.put("perplexity", texts(BASE, 10.0) + texts(at(1), 11.0) + texts(at(10), 90.0))
    bench.put("outcomes", [row | {"output": ""} for row in answers(at(100), "edit", [0.0])])
    row = bench.one("collapse_point")
    assert (row["collapse_at"], row["reason"]) == (10, "capability and perplexity")
    assert (row["capability_at"], row["perplexity_at"], row["empty_at"]) == (10, 10, 100)


def test_orderings_collapse_on_their_own(bench: Bench) -> None:
    bench.put("runs", [at(100, seed=1) | {"label": "Fast"}])
    for seed, nll in ((0, 11.0), (1, 90.0)):
        bench.put("perplexity", texts(at(0, trajectory="base", seed=seed), 10.0) + texts(at(10, seed=seed), nll))
    assert {row["order_seed"]: row["collapse_at"] for row in bench.ask("collapse_point")} == {0: None, 1: 10}
