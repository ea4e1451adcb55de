"""Views of searches for settings, on rows whose results were worked out by hand."""

from __future__ import annotations

import math
from statistics import harmonic_mean
from typing import Any

import pytest

from tests.support.view_bench import Bench, Row, at


def tried(trial: int | None, *, split: str = "validation", seed: int = 0, state: str = "completed", **more: Any) -> Row:
    """A row at the last edit count: four measures of the same value, each of 100 items."""
    row = at(10, seed=seed) | {"label": "Fast", "study": "s", "split": split, "trial": trial, "settings": "{}"}
    return row | {"state": state, "seconds": 2.0} | more


def measured(value: float) -> Row:
    names = ("reliability", "generalization", "locality", "capability")
    row: Row = dict.fromkeys(names, value) | {f"{name}_n": 100 for name in names}
    return row | {"base_capability": 1.0, "chance": 0.0, "capability_kept": value, "objective": value}


def wilson(p: float, n: int) -> tuple[float, float]:
    z = 1.959963984540054
    middle, margin = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - margin) / (1 + z * z / n), (middle + margin) / (1 + z * z / n)


def test_a_trial_is_the_mean_over_its_seeds_with_its_interval(bench: Bench) -> None:
    bench.put("trials", [tried(0, **measured(0.5)), tried(0, seed=1, **measured(0.7))])
    bench.put("trials", [tried(1, **measured(0.4)), tried(1, seed=1, **measured(0.4))])
    bench.put("trials", [tried(2, state="pruned", reliability=0.1, reliability_n=100, reported=0.1)])
    bench.put("trials", [tried(3, state="failed", error="singular")])
    rows = {row["trial"]: row for row in bench.ask("tuning_trials")}
    assert [rows[number]["value"] for number in range(4)] == [pytest.approx(0.6), 0.4, None, 0.0]
    assert [rows[number]["best"] for number in range(4)] == [pytest.approx(0.6)] * 4
    low, high = (harmonic_mean([bound, 0.4, 0.4, 0.4]) for bound in wilson(0.4, 100))
    assert rows[1]["low"] == pytest.approx(0.4 - 2 * (0.4 - low)), "four equal margins, independent: twice one"
    assert rows[1]["high"] == pytest.approx(0.4 + 2 * (high - 0.4))
    assert (rows[0]["num_seeds"], rows[0]["seconds"]) == (2, 4.0)
    assert (rows[2]["low"], rows[3]["low"], rows[3]["error"]) == (None, None, "singular")


def test_settings_that_change_nothing_are_worth_nothing(bench: Bench) -> None:
    still = measured(1.0) | {"reliability": 0.0, "objective": 0.0}
    some = measured(1.0) | {"reliability": 0.5, "generalization": None, "objective": harmonic_mean([0.5, 1.0, 1.0])}
    bench.put("trials", [tried(0, **still), tried(1, **some)])
    nothing, half = bench.ask("tuning_trials")
    assert nothing["value"] == nothing["low"] == 0 < nothing["high"] < half["low"] < half["value"] < half["high"] < 1


@pytest.mark.parametrize(("given", "kept"), [(0.79, "trial"), (0.8, "given"), (None, "trial")])
def test_given_settings_that_no_trial_beats_are_kept(bench: Bench, given: float | None, kept: str) -> None:
    bench.put("trials", [tried(0, **measured(0.8))])
    if given is not None:
        bench.put("trials", [tried(None, **measured(given))])
    assert bench.one("tuned_settings")["kept"] == kept


def test_the_chosen_settings_are_the_first_best_and_are_compared_on_test_edits(bench: Bench) -> None:
    bench.put("trials", [tried(0, **measured(0.5)), tried(1, **measured(0.8)), tried(2, **measured(0.8))])
    bench.put("trials", [tried(3, state="pruned"), tried(4, state="failed")])
    bench.put("trials", [tried(1, split="test", **measured(0.7))])
    bench.put("trials", [tried(None, **measured(0.6)), tried(None, split="test", **measured(0.65))])
    row = bench.one("tuned_settings")
    assert (row["trial"], row["num_trials"], row["num_completed"], row["num_pruned"], row["num_failed"]) == (
        1,
        5,
        3,
        1,
        1,
    )
    assert (row["validation"], row["test"], row["given_validation"], row["given_test"]) == (0.8, 0.7, 0.6, 0.65)
    assert row["gap"] == pytest.approx(0.1) and row["gain"] == pytest.approx(0.05)
    below, above = 0.8 - row["validation_low"], row["test_high"] - 0.7
    assert row["gap_low"] == pytest.approx(0.1 - math.hypot(below, above))
    assert row["gap_low"] < row["gap"] < row["gap_high"] and row["gain_low"] < row["gain"] < row["gain_high"]


def test_a_search_whose_test_is_still_to_come_has_a_row(bench: Bench) -> None:
    bench.put("trials", [tried(0, **measured(0.5))])
    row = bench.one("tuned_settings")
    assert (row["trial"], row["validation"], row["test"], row["gap"]) == (0, 0.5, None, None)
