"""The views on the loss of general ability and what foretold it, on rows whose results were worked out by hand."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from overedit.tasks.warehouse.statistics import holm
from overedit.tasks.warehouse.views import view_sql
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.synthetic_run import RUN, fill, fill_samples
from tests.tasks.warehouse.views.test_views import BASE, Bench, Row, answers, at, capabilities, texts


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """With one trajectory `fast`, called Fast, that was to take 100 edits."""
    bench = Bench(tmp_path)
    bench.put("runs", [at(100) | {"label": "Fast", "status": "completed"}])
    return bench


def items(place: Row, task: str, *values: float, metric: str = "acc") -> list[Row]:
    return [place | {"task": task, "doc_id": i, "metric": metric, "value": value} for i, value in enumerate(values)]


def with_headline(place: Row, *tasks: str) -> list[Row]:
    """Which metric of the tasks is the headline; a score of 0.9 out of 100 stands with it."""
    return capabilities(place, **dict.fromkeys(tasks, 0.9))


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
    for place, lost in [(at(10), 8), (at(100), 6), (at(50, trajectory="b"), 5)]:
        bench.put("outcomes", answers(place, "edit", [1]))
        bench.put("checkpoints", [place | {"parameter": "w"}])
        bench.put("capability_samples", items(place, "t", *[0] * lost, *[1] * (8 - lost)))
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


# ---- collapse_definitions


def definition(bench: Bench, name: str) -> tuple[int | None, int | None, str | None]:
    row = bench.one("collapse_definitions", f"definition = '{name}' AND trajectory = 'fast'")
    return row["collapse_at"], row["last_good"], row["detail"]


def test_what_was_not_measured_has_no_verdict_and_says_so(bench: Bench) -> None:
    rows = bench.ask("collapse_definitions")
    assert [row["definition"] for row in rows] == ["practical", "significant", "perplexity", "muted", "forgotten"]
    assert all(row["collapse_at"] is None and row["last_good"] is None and row["detail"] for row in rows)


def test_practical_collapse_is_that_of_the_collapse_point(bench: Bench) -> None:
    bench.put("capability", capabilities(BASE, t=0.9) + capabilities(at(10), t=0.85) + capabilities(at(20), t=0.3))
    at_10, at_20 = (bench.one("capability_by_edit_count", f"task = 'mean' AND edit_count = {n}") for n in (10, 20))
    assert at_10["high"] > 0.72 > at_20["high"]
    expected = f"capability at most {100 * at_20['high']:.1f} %, 90.0 % before editing, chance 0.0 %"
    assert definition(bench, "practical") == (20, 10, expected)
    assert bench.one("collapse_point")["capability_at"] == 20
    (share,) = bench.warehouse.query("SELECT practical_share()").to_pylist()[0].values()
    assert f"{share} AS capability_share" in view_sql("collapse_point")


def test_significant_collapse_stays_to_the_end(bench: Bench) -> None:
    bench.put("capability", with_headline(BASE, "t"))
    bench.put("capability_samples", items(BASE, "t", *[1] * 10))
    for count, lost in {1: 8, 10: 2, 20: 7, 30: 9}.items():
        bench.put("capability_samples", items(at(count), "t", *[0] * lost, *[1] * (10 - lost)))
    collapse_at, last_good, detail = definition(bench, "significant")
    assert (collapse_at, last_good, detail) == (20, 10, "7 items lost, 0 gained of 10, p 0.016")
    bench.put("capability_samples", items(at(40), "t", *[1] * 10))
    assert definition(bench, "significant") == (None, 40, None)


def test_better_than_before_is_no_collapse(bench: Bench) -> None:
    bench.put("capability", with_headline(BASE, "t"))
    bench.put("capability_samples", items(BASE, "t", *[0] * 10) + items(at(10), "t", *[1] * 10))
    assert definition(bench, "significant") == (None, 10, None)


@pytest.mark.parametrize(
    ("base", "after", "collapse_at"),
    [(10.0, 32.0, None), (10.0, 34.0, 10), (60.0, 69.0, None), (60.0, 69.2, 10), (10.0, math.nan, 10)],
)
def test_perplexity_collapse_is_of_a_multiple_or_of_a_thousand(
    bench: Bench, base: float, after: float, collapse_at: int | None
) -> None:
    # 10 tokens: exp(3.2 - 1) = 9.03 and exp(2.4) = 11.02 times; exp(6.9) = 992, exp(6.92) = 1012
    bench.put("perplexity", texts(BASE, base) + texts(at(10), after))
    assert definition(bench, "perplexity")[0] == collapse_at


def test_muted_is_at_chance_or_empty(bench: Bench) -> None:
    chance = {"chance": 0.25}
    rows = [*capabilities(BASE, t=0.9), *capabilities(at(10), t=0.45), *capabilities(at(20), t=0.28)]
    bench.put("capability", [row | chance for row in rows])
    assert definition(bench, "muted")[:2] == (20, 10)
    texts_10 = [answer | {"output": ""} for answer in answers(at(10), "edit", [0, 0, 0])]
    bench.put("outcomes", texts_10)
    assert definition(bench, "muted") == (10, 0, "100.0 % of the outputs are empty")


def test_at_chance_from_the_start_is_not_muted(bench: Bench) -> None:
    rows = [row | {"chance": 0.25} for row in capabilities(BASE, t=0.28) + capabilities(at(10), t=0.2)]
    bench.put("capability", rows)
    assert definition(bench, "muted")[:2] == (None, None)
    assert "practical" in {row["definition"] for row in bench.ask("collapse_definitions", "collapse_at IS NULL")}


def test_forgotten_is_below_half_of_the_best(bench: Bench) -> None:
    for count, right in {10: 60, 20: 40, 30: 10}.items():
        bench.put("outcomes", answers(at(count), "edit", [1.0] * right + [0.0] * (60 - right)))
    assert definition(bench, "forgotten")[:2] == (30, 20)
    assert bench.one("collapse_point")["reliability_at"] == 30


# ---- retention_half_life


def remembered(count: int, **shares: float) -> list[Row]:
    """One answer an edit; the share right is given by decade (`d0` is age 0, `d1` ages 1-9, ...)."""
    made = []
    for position in range(1, count + 1):
        age = count - position
        share = shares[f"d{len(str(age)) if age else 0}"]
        right = float(math.floor(share * (age + 1)) > math.floor(share * age))
        made.append(at(count) | {"position": position, "case_id": str(position), "probe": "edit"})
        made[-1] |= {"protocol": "generated", "score": right}
    return made


def test_half_life_lies_between_decades_on_a_logarithmic_line(bench: Bench) -> None:
    bench.put("outcomes", remembered(100, d0=1, d1=1, d2=0.2))
    row = bench.one("retention_half_life")
    assert (row["edit_count"], row["protocol"], row["newest"], row["newest_n"]) == (100, "generated", 1.0, 10)
    # 1 at age sqrt(1 x 9) = 3, 0.2 at sqrt(10 x 99) = 31.46: half at 5/8 of the way
    assert row["half_life"] == pytest.approx(3 * (31.464 / 3) ** 0.625, rel=1e-3)
    assert row["reason"] is None
    assert (row["newest_low"], row["newest_high"]) == pytest.approx((0.72247, 1.0), abs=1e-5)


def test_half_life_beyond_the_oldest_age_says_how_far_it_looked(bench: Bench) -> None:
    bench.put("outcomes", remembered(100, d0=1, d1=1, d2=0.6) + remembered(1, d0=1))
    found = {row["edit_count"]: (row["half_life"], row["reason"]) for row in bench.ask("retention_half_life")}
    assert found == {1: (None, "> 0"), 100: (None, "> 99")}


def test_nothing_new_known_has_no_half_life(bench: Bench) -> None:
    bench.put("outcomes", remembered(100, d0=0, d1=0, d2=0.5))
    row = bench.one("retention_half_life")
    assert (row["newest"], row["half_life"], row["reason"]) == (0.0, None, "nothing new is known")


# ---- probes, their correlation with capability, and warnings


def moved(place: Row, relative: float) -> Row:
    return place | {"parameter": "w", "weight_norm": 2.0, "base_norm": 2.0, "update_norm": 2 * relative}


def test_probes_stand_side_by_side(bench: Bench) -> None:
    bench.put("perplexity", texts(BASE, 10.0) + texts(at(10), 20.0) + texts(at(20), math.nan))
    bench.put("checkpoints", [moved(at(10), 0.25)])
    bench.put("outcomes", [row | {"output": ""} for row in answers(at(10), "locality", [1, 0], agreement=0.5)])
    turns = [(1, 5, 0.5), (6, 10, 0.25)]
    logged = {"site": "5.down_proj", "quantity": "preservation"}
    rows = [at(10) | logged | {"first_edit": a, "last_edit": b, "value": value} for a, b, value in turns]
    bench.put("diagnostics", rows)
    found = {(row["probe"], row["edit_count"]): row["value"] for row in bench.ask("probes_by_edit_count")}
    assert found == {
        ("perplexity_ratio", 10): pytest.approx(math.e),
        ("perplexity_ratio", 20): math.inf,
        ("relative_update", 10): 0.25,
        ("turn_preservation", 10): 0.5,
        ("empty", 10): 1.0,
        ("repetitive", 10): 0.0,
        ("mean_tokens", 10): None,
        ("length_share", 10): None,
        ("locality_generated", 10): 0.5,
    }


def test_a_share_of_a_handful_of_prompts_does_not_warn(bench: Bench) -> None:
    correlated(bench, shares=[0.99, 0.2], relative=[0.0, 0.0])
    bench.put("outcomes", answers(at(10), "locality", [None] * 3, agreement=0.0))  # 0 of 3: at most 56 %
    bench.put("outcomes", answers(at(20), "locality", [None] * 12, agreement=0.0))  # 0 of 12: at most 24 %
    found = {row["rule"]: row["warned_at"] for row in bench.ask("early_warning", "probe = 'locality_generated'")}
    expected = {"locality_generated < 0.9": 10, "locality_generated < 0.7": 10, "locality_generated < 0.5": 20}
    assert found == expected
    probe = bench.one("probes_by_edit_count", "probe = 'locality_generated' AND edit_count = 10")
    assert (probe["n"], probe["low"], probe["high"]) == (3, 0.0, pytest.approx(0.5615, abs=1e-4))


def correlated(bench: Bench, shares: list[float], relative: list[float], nlls: list[float] | None = None) -> None:
    """One trajectory whose capability and weights take these values at 10, 20, ... edits."""
    bench.put("capability", capabilities(BASE, t=1.0))
    bench.put("perplexity", texts(BASE, 10.0))
    for i, (share, moves) in enumerate(zip(shares, relative, strict=True), 1):
        place = at(10 * i)
        bench.put("capability", capabilities(place, t=share))
        bench.put("outcomes", answers(place, "edit", [1.0]))
        bench.put("checkpoints", [moved(place, moves)])
        if nlls:
            bench.put("perplexity", texts(place, nlls[i - 1]))


def test_rank_correlation_takes_average_ranks(bench: Bench) -> None:
    correlated(bench, shares=[0.9, 0.8, 0.8, 0.4, 0.5], relative=[1, 2, 3, 4, 4])
    row = bench.one("probe_correlation", "probe = 'relative_update' AND method = 'all'")
    assert (row["num_points"], row["num_trajectories"], row["against"]) == (5, 1, "capability_share")
    # ranks of capability and of the weights; the squares of their distances from 3 add up to 9.5 each
    pairs = [(5, 1), (3.5, 2), (3.5, 3), (1, 4.5), (2, 4.5)]
    rho = sum((x - 3) * (y - 3) for x, y in pairs) / 9.5
    assert row["spearman"] == pytest.approx(rho)
    error = 1.959964 * math.sqrt((1 + rho**2 / 2) / 2)
    bounds = math.tanh(math.atanh(rho) - error), math.tanh(math.atanh(rho) + error)
    assert (row["low"], row["high"]) == pytest.approx(bounds, abs=1e-6)
    values = [(0.9, 1), (0.8, 2), (0.8, 3), (0.4, 4), (0.5, 4)]
    xs, ys = [x - 0.68 for x, _ in values], [y - 2.8 for _, y in values]
    scale = math.sqrt(sum(x * x for x in xs) * sum(y * y for y in ys))
    assert row["pearson"] == pytest.approx(sum(x * y for x, y in zip(xs, ys, strict=True)) / scale)
    alone = bench.one("probe_correlation", "probe = 'relative_update' AND method = 'method_of_fast'")
    assert (alone["num_points"], alone["spearman"]) == (5, pytest.approx(rho))


def test_correlation_without_spread_or_points_says_so(bench: Bench) -> None:
    correlated(bench, shares=[0.9, 0.8, 0.7], relative=[1, 2, 3])
    assert (
        bench.one("probe_correlation", "probe = 'relative_update' AND method = 'all'")["reason"]
        == "fewer than 4 points"
    )
    bench.put("capability", capabilities(at(100), t=0.1))
    bench.put("outcomes", answers(at(100), "edit", [1.0]))
    row = bench.one("probe_correlation", "probe = 'reliability_generated' AND method = 'all'")
    assert (row["num_points"], row["spearman"], row["low"], row["pearson"]) == (4, None, None, None)
    assert row["reason"] == "the probe has one value"


def test_perplexity_that_is_no_number_ranks_last_and_counts_for_no_line(bench: Bench) -> None:
    correlated(bench, shares=[0.9, 0.8, 0.7, 0.1], relative=[1, 1, 1, 1], nlls=[11.0, 12.0, 13.0, math.nan])
    row = bench.one("probe_correlation", "probe = 'log_perplexity_ratio' AND method = 'all'")
    assert (row["spearman"], row["pearson"]) == (pytest.approx(-1), pytest.approx(-1))
    assert (row["low"], row["high"]) == (None, None)  # a perfect order says nothing about its own spread


def test_warnings_are_held_against_the_practical_collapse(bench: Bench) -> None:
    correlated(bench, shares=[0.99, 0.99, 0.2, 0.1], relative=[0.05, 0.2, 0.5, 2.0], nlls=[10.0, 10.0, 10.4, 15.0])
    assert bench.one("collapse_point")["capability_at"] == 30
    rows = {row["rule"]: row for row in bench.ask("early_warning")}
    found = {rule: (row["warned_at"], row["lead"], row["verdict"]) for rule, row in rows.items()}
    assert found["relative_update > 0.1"] == (20, 1.5, "early")
    assert found["relative_update > 0.3"] == (30, 1.0, "same count")
    assert found["relative_update > 1.0"] == (40, 0.75, "late")
    assert found["perplexity_ratio > 1.1"] == (40, 0.75, "late")
    assert found["perplexity_ratio > 2.0"] == (None, None, "missed")
    assert found["reliability_generated < 0.9"] == (None, None, "missed")
    assert found["locality_generated < 0.9"] == (None, None, None)  # not asked
    assert (rows["relative_update > 0.1"]["threshold"], rows["relative_update > 0.1"]["collapse_at"]) == (0.1, 30)


def test_warnings_without_a_collapse(bench: Bench) -> None:
    correlated(bench, shares=[0.99, 0.99], relative=[0.05, 0.2])
    found = {row["rule"]: row["verdict"] for row in bench.ask("early_warning")}
    assert (found["relative_update > 0.1"], found["relative_update > 1.0"]) == ("false alarm", "quiet")


def test_warnings_without_capability_have_no_verdict(bench: Bench) -> None:
    bench.put("checkpoints", [moved(at(10), 0.5)])
    row = bench.one("early_warning", "rule = 'relative_update > 0.3'")
    assert (row["warned_at"], row["verdict"]) == (10, None)


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
    for place, value in [(BASE, 0.9), (at(10), 0.88), (at(20), 0.5), (at(30), 0.5)]:
        bench.put("perplexity", texts(place, 10.0))
        bench.put("capability", capabilities(place, t=value))
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


# ---- all of them, on the made-up run


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The made-up run with its single items."""
    warehouse = fill(tmp_path_factory.mktemp("made_up"), cases=20)
    fill_samples(warehouse)
    return warehouse


def test_the_documentations_queries_are_answered(made_up: Warehouse, repository: Path) -> None:
    page = (repository / "docs" / "collapse.md").read_text()
    queries = re.findall(r'overedit sql "([^"]+)"', page)
    assert len(queries) == page.count("overedit sql") == 7
    for query in queries:
        assert made_up.query(query.replace("pocket-collapse", RUN)).num_rows, query


def test_the_views_agree_on_the_made_up_run(made_up: Warehouse) -> None:
    with made_up.connect(run=RUN) as connection:

        def ask(sql: str) -> list[Row]:
            return list(connection.sql(sql).to_arrow_table().to_pylist())

        collapses = {row["trajectory"]: row["capability_at"] for row in ask("FROM collapse_point")}
        assert collapses == {"locft_bf": None, "ultraedit": None, "ft_l": 10}
        practical = ask("FROM collapse_definitions WHERE definition = 'practical'")
        assert {row["trajectory"]: row["collapse_at"] for row in practical} == collapses
        assert all(row["collapse_at"] == collapses[row["trajectory"]] for row in ask("FROM capability_gating"))
        assert all(row["collapse_at"] == collapses[row["trajectory"]] for row in ask("FROM early_warning"))
        changes = ask("FROM capability_change WHERE task = 'all' AND trajectory = 'ft_l'")
        assert [row["n"] for row in changes] == [600] * 4
        assert [row["p_adjusted"] < 0.05 for row in changes] == [True] * 4
        unhurt = ask("FROM capability_change WHERE task = 'all' AND trajectory = 'locft_bf' AND edit_count = 1")
        assert unhurt[0]["p_adjusted"] > 0.05 and unhurt[0]["low"] < 0 < unhurt[0]["high"]
        best = ask("FROM probe_correlation WHERE method = 'all' AND probe = 'log_perplexity_ratio'")
        assert best[0]["num_points"] == 12 and best[0]["spearman"] < -0.9
        assert len(ask("FROM leaderboard WHERE p_adjusted IS NOT NULL")) == 3
        assert {row["num_orders"] for row in ask("FROM seed_bands WHERE measure = 'capability'")} == {1}
