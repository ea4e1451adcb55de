"""The search for the collapse, on made-up trajectories whose collapse is known."""

from __future__ import annotations

import math
import random

import pytest

from overedit.tasks.search.bracket import Bracket, Verdict, bracket, next_count
from overedit.tasks.search.options import SearchOptions
from overedit.tasks.search.verdicts import judge
from tests.support.searches import NUM_ITEMS, Trajectory, searched


def options(**more: object) -> SearchOptions:
    return SearchOptions.model_validate({"search": "collapse", "stop": 1000} | more)


GOOD, BAD = Verdict("good", "good"), Verdict("bad", "bad")
LIKELY_GOOD, LIKELY_BAD = Verdict("undecided", "good"), Verdict("undecided", "bad")


@pytest.mark.parametrize("precision", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("growth", [2.0, 10**0.5, 10.0])
def test_every_collapse_is_bracketed_as_narrowly_as_asked(growth: float, precision: float) -> None:
    asked = options(growth=growth, precision=precision)
    for collapse in range(1, 1001):
        found = searched(asked, lambda count, collapse=collapse: BAD if count >= collapse else GOOD)
        answer = bracket(found)
        assert answer.last_good < collapse
        assert answer.collapse_at is not None and collapse <= answer.collapse_at
        assert answer.collapse_at - answer.last_good <= max(1, precision * answer.last_good)
        assert answer.takes == answer.last_good and not answer.inside


def test_a_model_that_does_not_collapse_is_measured_at_the_growing_counts_only() -> None:
    asked = options(start=3, growth=4.0, stop=500)
    assert asked.growing() == [3, 12, 48, 192, 500]
    assert list(searched(asked, lambda _: GOOD)) == asked.growing()
    assert bracket(dict.fromkeys(asked.growing(), GOOD)) == Bracket(500, None, 500, ())


def test_undecided_counts_stay_inside_the_bracket_and_its_edges_are_halved() -> None:
    def verdict(count: int) -> Verdict:
        if 100 < count < 300:
            return LIKELY_GOOD if count < 180 else LIKELY_BAD
        return GOOD if count <= 100 else BAD

    found = searched(options(), verdict)
    answer = bracket(found)
    assert 90 < answer.last_good <= 100 and answer.collapse_at is not None and 300 <= answer.collapse_at < 330
    assert answer.inside and answer.takes == max(c for c in answer.inside if c < 180)
    assert len(found) < 20


def test_the_lower_edge_is_found_where_the_last_count_is_undecided() -> None:
    found = searched(options(), lambda count: GOOD if count < 130 else LIKELY_GOOD)
    answer = bracket(found)
    assert answer.collapse_at is None and answer.takes == 1000 and 118 <= answer.last_good < 130


def test_a_good_count_above_a_bad_one_does_not_hide_the_collapse() -> None:
    assert bracket({10: GOOD, 20: BAD, 40: GOOD, 80: BAD}) == Bracket(10, 20, 10, ())


def test_the_way_depends_on_the_verdicts_alone() -> None:
    """As when a search was stopped at any of its counts."""
    asked, verdict = options(), lambda count: BAD if count >= 217 else GOOD
    whole = list(searched(asked, verdict))
    for length in range(len(whole)):
        known = {count: verdict(count) for count in whole[:length]}
        assert next_count(asked, known) == whole[length]


def test_more_items_are_asked_up_to_the_limit() -> None:
    assert options().item_limits(None) == [None] and options().item_limits(100) == [100]
    assert options(items=25).item_limits(None) == [25, 100, 400, None]
    assert options(items=25).item_limits(90) == [25, 90]
    assert options(items=200).item_limits(90) == [90]


def test_an_interval_that_holds_the_limit_decides_nothing() -> None:
    row = {"value": 0.6, "low": 0.5, "high": 0.7, "is_met": False}
    z95 = 1.96
    assert judge(row | {"limit": 0.4}, z95) == GOOD
    assert judge(row | {"limit": 0.8}, z95) == BAD
    assert judge(row | {"limit": 0.55}, z95) == LIKELY_GOOD
    assert judge(row | {"limit": 0.65}, z95) == LIKELY_BAD
    assert judge(row | {"limit": 0.48}, 3.0) == LIKELY_GOOD, "a wider interval is less sure"
    assert judge({"low": None, "high": None, "is_met": True}, z95) == BAD


@pytest.mark.parametrize("items", [None, 50])
@pytest.mark.parametrize("shape", ["sudden", "steep", "slow"])
def test_the_bracket_holds_the_collapse_in_at_least_the_stated_share_of_simulated_searches(
    shape: str, items: int | None
) -> None:
    """1,000 noisy searches, some with 50 items of each of four tasks at first; 840 in all."""
    asked, draw, held = options(items=items), random.Random(f"searches of {shape}"), 0
    looks = (NUM_ITEMS,) if items is None else (200, NUM_ITEMS)
    for _ in range(1000):
        trajectory = Trajectory(collapse=round(10 ** draw.uniform(0.5, 2.9)), shape=shape, draw=draw)
        answer = bracket(searched(asked, lambda count, one=trajectory: one.verdict(count, asked.z(), looks)))
        upper = math.inf if answer.collapse_at is None else answer.collapse_at
        held += answer.last_good < trajectory.collapse <= upper
    assert held >= 950, f"{held} of 1,000"
