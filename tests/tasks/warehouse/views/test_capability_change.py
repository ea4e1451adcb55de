"""Views of what editing changed in general ability, item by item, on rows whose results were worked out by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from overedit.tasks.warehouse.statistics import holm
from tests.support.view_bench import BASE, Bench, answers, at, capabilities, items, texts, with_headline

# ---- capability_change


def test_items_lost_and_gained_are_those_of_the_same_question(bench: Bench) -> None:
    bench.put("capability", with_headline(BASE, "t"))
    bench.put("capability_samples", items(BASE, "t", 1, 1, 1, 1, 0, 0))
    bench.put("capability_samples", items(at(10), "t", 0, 0, 0, 1, 1, 0))
    bench.put("capability_samples", items(at(10), "t", 1, 1, 1, 1, 1, 1, metric="f1"))  # not the headline
    row = bench.one("capability_change", "task = 't'")
    assert (row["label"], row["method"], row["edit_count"], row["n"]) == ("Fast", "method_of_fast", 10, 6)
    assert (row["num_lost"], row["num_gained"]) == (3, 1)
    assert (row["base_value"], row["value"], row["difference"]) == pytest.approx((4 / 6, 2 / 6, -2 / 6))
    assert row["p_value"] == pytest.approx(2 * (1 + 4) / 16)  # C(4, 0) + C(4, 1) of 2^4, both sides
    # middle -2 / 8; variance (4 + 1) / 8 - 1/16 = 0.5625; margin 1.95996 sqrt(0.5625 / 8)
    assert (row["low"], row["high"]) == pytest.approx((-0.769714, 0.269714), abs=1e-6)
    assert bench.one("capability_change", "task = 'all'") == row | {"task": "all"}


def test_nothing_changed_is_no_proof_that_nothing_does(bench: Bench) -> None:
    bench.put("capability", with_headline(BASE, "t"))
    bench.put("capability_samples", items(BASE, "t", 1, 1, 1, 0, 0, 0) + items(at(10), "t", 1, 1, 1, 0, 0, 0))
    row = bench.one("capability_change", "task = 'all'")
    assert (row["difference"], row["num_lost"], row["num_gained"], row["p_value"], row["p_adjusted"]) == (0, 0, 0, 1, 1)
    assert (row["low"], row["high"]) == pytest.approx((-0.2449955, 0.2449955))  # 1.95996 sqrt(1 / 8 / 8)


def test_items_of_all_tasks_are_pooled_and_unequal_halves_of_a_pair_left_out(bench: Bench) -> None:
    bench.put("capability", with_headline(BASE, "a", "b"))
    bench.put("capability_samples", items(BASE, "a", 1, 1) + items(BASE, "b", 1, 1, 1, 1, math.nan))
    bench.put("capability_samples", items(at(10), "a", 0) + items(at(10), "b", 1, 1, 1, math.nan, 1))
    found = {row["task"]: (row["n"], row["difference"]) for row in bench.ask("capability_change")}
    assert found == {"a": (1, -1.0), "b": (3, 0.0), "all": (4, -0.25)}


def test_scores_that_are_fractions_have_a_sign_test(bench: Bench) -> None:
    bench.put("capability", with_headline(BASE, "t"))
    bench.put("capability_samples", items(BASE, "t", 0.5, 0.5, 0.5) + items(at(10), "t", 0.25, 0.25, 0.75))
    row = bench.one("capability_change", "task = 't'")
    assert (row["num_lost"], row["num_gained"], row["p_value"]) == (2, 1, 1.0)
    assert row["difference"] == pytest.approx(-0.25 / 3)
    # middle -0.25 / 5; variance (3 / 16 + 1) / 5 - 0.0025
    margin = 1.959964 * math.sqrt((1.1875 / 5 - 0.0025) / 5)
    assert (row["low"], row["high"]) == pytest.approx((-0.05 - margin, -0.05 + margin), abs=1e-6)


def test_the_family_is_the_runs_trajectories_at_an_edit_count(bench: Bench) -> None:
    bench.put("capability", with_headline(BASE, "t"))
    bench.put("capability_samples", items(BASE, "t", *[1] * 8))
    for trajectory, lost in {"a": 5, "b": 6, "c": 1}.items():
        bench.put("capability_samples", items(at(10, trajectory=trajectory), "t", *[0] * lost, *[1] * (8 - lost)))
    bench.put("capability_samples", items(at(20, trajectory="a"), "t", *[0] * 8))
    rows = bench.ask("capability_change", "task = 't'")
    at_10 = [row for row in rows if row["edit_count"] == 10]
    assert [row["p_value"] for row in at_10] == pytest.approx([2 / 2**5, 2 / 2**6, 1])
    assert [row["p_adjusted"] for row in at_10] == pytest.approx([0.125, 0.09375, 1])  # x 2, x 3, x 1
    assert [row["p_adjusted"] for row in at_10] == pytest.approx(holm([row["p_value"] for row in at_10]))
    assert [row["p_adjusted"] for row in rows if row["edit_count"] == 20] == pytest.approx([2 / 2**8])


def test_orderings_are_compared_with_their_own_pristine_rows(bench: Bench) -> None:
    bench.put("capability", with_headline(BASE, "t"))
    bench.put("capability_samples", items(BASE, "t", 1) + items(at(0, trajectory="base", seed=1), "t", 0))
    bench.put("capability_samples", items(at(10), "t", 1) + items(at(10, seed=1), "t", 1))
    found = {row["order_seed"]: row["difference"] for row in bench.ask("capability_change", "task = 'all'")}
    assert found == {0: 0.0, 1: 1.0}


def test_the_leaderboard_adjusts_over_the_last_counts(bench: Bench) -> None:
    bench.put("capability", with_headline(BASE, "t"))
    bench.put("capability_samples", items(BASE, "t", *[1] * 8))
    for point, lost in [(at(10), 8), (at(100), 6), (at(50, trajectory="b"), 5)]:
        bench.put("outcomes", answers(point, "edit", [1]))
        bench.put("checkpoints", [point | {"parameter": "w"}])
        bench.put("capability_samples", items(point, "t", *[0] * lost, *[1] * (8 - lost)))
    fast, other = sorted(bench.ask("leaderboard"), key=lambda row: row["edit_count"], reverse=True)
    assert (fast["edit_count"], fast["capability_difference"]) == (100, -0.75)
    assert (fast["p_value"], fast["p_adjusted"]) == pytest.approx((2 / 2**6, 4 / 2**6))
    assert (other["p_value"], other["p_adjusted"]) == pytest.approx((2 / 2**5, 2 / 2**5))
    assert fast["capability_difference_low"] < -0.75 < fast["capability_difference_high"] < 0


# ---- seed_bands


def test_bands_are_over_the_orderings(bench: Bench) -> None:
    for seed, scores in enumerate([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]):
        bench.put("outcomes", answers(at(10, seed=seed), "edit", [float(score) for score in scores]))
        bench.put("checkpoints", [at(10, seed=seed) | {"parameter": "w"}])
    row = bench.one("seed_bands", "measure = 'reliability'")
    assert (row["trajectory"], row["protocol"], row["edit_count"], row["num_orders"]) == ("fast", "generated", 10, 3)
    assert (row["mean"], row["lowest"], row["highest"]) == (0.75, 0.5, 1.0)
    assert "order_seed" not in row
    margin = 4.302653 * 0.25 / math.sqrt(3)  # standard deviation 0.25, two degrees of freedom
    assert (row["low"], row["high"]) == (pytest.approx(0.75 - margin), 1.0)


def test_one_ordering_has_no_band(bench: Bench) -> None:
    bench.put("outcomes", answers(at(10), "edit", [1, 0]))
    row = bench.one("seed_bands", "measure = 'reliability'")
    assert (row["num_orders"], row["mean"], row["low"], row["high"]) == (1, 0.5, None, None)


def test_bands_of_perplexity_and_capability(bench: Bench) -> None:
    for seed, nll in enumerate([10.0, 20.0, math.inf]):
        pristine = at(0, trajectory="base", seed=seed)
        bench.put("checkpoints", [at(10, seed=seed) | {"parameter": "w"}])
        bench.put("perplexity", texts(pristine, 10.0) + texts(at(10, seed=seed), nll))
        bench.put("capability", capabilities(at(10, seed=seed), t=0.5 + seed / 10))
    row = bench.one("seed_bands", "measure = 'perplexity_ratio' AND edit_count = 10")
    assert (row["protocol"], row["num_orders"], row["lowest"], row["highest"]) == (None, 3, 1.0, math.inf)
    assert (row["mean"], row["low"], row["high"]) == (None, None, None)
    row = bench.one("seed_bands", "measure = 'capability' AND edit_count = 10")
    assert (row["mean"], row["num_orders"]) == (pytest.approx(0.6), 3)


# ---- capability_gating


def gating(bench: Bench, ratio: float) -> dict[str, Any]:
    return bench.one("capability_gating", f"gate_ratio = {ratio} AND trajectory = 'fast'")


def test_gating_says_what_would_have_been_saved_and_missed(bench: Bench) -> None:
    bench.put("perplexity", texts(BASE, 10.0))
    bench.put("capability", capabilities(BASE, t=1.0))
    bench.put("capability_samples", items(BASE, "t", *[1] * 40))
    # steps of a factor 2 (log 0.693): 0, 0, 1, 1, 1
    for count, nll, lost in [(10, 10.1, 0), (20, 11.0, 20), (30, 17.0, 20), (40, 17.0, 30), (50, 17.0, 36)]:
        bench.put("perplexity", texts(at(count), nll))
        bench.put("capability", capabilities(at(count), t=1 - lost / 40))
        bench.put("capability_samples", items(at(count), "t", *[0] * lost, *[1] * (40 - lost)))
    row = gating(bench, 2.0)
    assert (row["num_counts"], row["num_measured"], row["num_skipped"], row["saving"]) == (5, 5, 3, 0.6)
    # 10 is as 0; 20 has lost half since 0, which was evaluated last; 40 has lost 10 of 40 since 30
    assert (row["num_misses"], row["largest_miss"]) == (2, 0.5)
    assert (row["collapse_at"], row["collapse_at_gated"], row["is_own"]) == (20, 30, False)
    row = gating(bench, 1.1)  # log 0.0953: levels 0, 1, 7, 7, 7
    assert (row["num_skipped"], row["num_misses"], row["collapse_at_gated"]) == (2, 1, 20)


def test_gating_without_items_goes_by_the_mean(bench: Bench) -> None:
    for point, value in [(BASE, 0.9), (at(10), 0.88), (at(20), 0.5), (at(30), 0.5)]:
        bench.put("perplexity", texts(point, 10.0))
        bench.put("capability", capabilities(point, t=value))
    row = gating(bench, 1.1)
    assert (row["num_skipped"], row["num_misses"], row["largest_miss"]) == (2, 1, pytest.approx(0.4))


def test_a_gated_run_tells_what_it_spared(bench: Bench) -> None:
    ended = at(30, trajectory="gated") | {"config": json.dumps({"capability": {"when": "gated", "gate_ratio": 1.3}})}
    bench.put("runs", [ended])
    bench.put("perplexity", texts(BASE, 10.0))
    bench.put("capability", capabilities(BASE, t=0.9))
    for count in (10, 20, 30):
        bench.put("perplexity", texts(at(count, trajectory="gated"), 10.0))
    bench.put("capability", capabilities(at(30, trajectory="gated"), t=0.9))
    row = bench.one("capability_gating", "is_own")
    assert (row["trajectory"], row["gate_ratio"], row["num_counts"], row["num_measured"]) == ("gated", 1.3, 3, 1)
    assert (row["num_skipped"], row["num_misses"]) == (2, None)  # nobody knows what was missed
