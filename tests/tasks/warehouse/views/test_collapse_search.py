"""The views of a search for the collapse: verdicts in, number and bracket out; and the checks that the verdicts use."""

from __future__ import annotations

import math
from typing import Any

import pytest

from overedit.tasks.search.bracket import Bracket, Verdict, bracket
from tests.support.view_bench import BASE, Bench, Row, answers, at, capabilities, texts

GOOD, BAD = ("good", "good"), ("bad", "bad")
MAYBE_GOOD, MAYBE_BAD = ("undecided", "good"), ("undecided", "bad")


def verdicts(
    found: dict[int, tuple[str, str]], *, seed: int = 0, definition: str = "practical", rank: int = 1
) -> list[Row]:
    more = {"definition": definition, "rank": rank, "z": 1.96, "confidence": 0.95}
    return [
        at(count, seed=seed) | more | {"verdict": verdict, "likely": likely}
        for count, (verdict, likely) in found.items()
    ]


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        ({1: GOOD, 10: GOOD, 100: BAD, 30: GOOD}, (30, 30, 100, 0)),
        ({1: GOOD, 10: GOOD}, (10, 10, None, 0)),
        ({1: BAD}, (0, 0, 1, 0)),
        ({10: GOOD, 20: MAYBE_GOOD, 30: MAYBE_BAD, 40: MAYBE_GOOD, 50: BAD}, (20, 10, 50, 3)),
        ({10: GOOD, 20: BAD, 40: GOOD}, (10, 10, 20, 0)),
        ({10: GOOD, 20: MAYBE_GOOD}, (20, 10, None, 1)),
        ({10: MAYBE_BAD, 20: BAD}, (0, 0, 20, 1)),
    ],
)
def test_the_view_gives_the_bracket_of_the_search(
    bench: Bench, found: dict[int, Any], answer: tuple[int, int, int | None, int]
) -> None:
    bench.put("verdicts", verdicts(found))
    bench.put("checkpoints", [at(count) for count in found])
    row = bench.one("collapse_search")
    assert (row["takes"], row["last_good"], row["collapse_at"], row["undecided"]) == answer
    assert (row["num_measured"], row["measured_up_to"]) == (len(found), max(found))
    same = bracket({count: Verdict(*verdict) for count, verdict in found.items()})
    assert Bracket(row["last_good"], row["collapse_at"], row["takes"], same.inside) == same


def test_collapse_point_and_leaderboard_answer_with_the_search_s_first_definition(bench: Bench) -> None:
    bench.put("capability", capabilities(BASE, a=0.9) + capabilities(at(10), a=0.9) + capabilities(at(20), a=0.75))
    bench.put("capability", capabilities(at(30), a=0.5))
    bench.put("perplexity", texts(BASE, 10.0) + texts(at(10), 50.0))
    bench.put("outcomes", [row for count in (10, 20, 30) for row in answers(at(count), "edit", [1.0], output="x")])
    bench.put("verdicts", verdicts({10: GOOD, 20: MAYBE_GOOD, 30: BAD}))
    bench.put("verdicts", verdicts({10: BAD}, definition="perplexity", rank=2))
    point = bench.one("collapse_point")
    assert (point["takes"], point["last_good"], point["collapse_at"], point["confidence"]) == (20, 10, 30, 0.95)
    assert point["reason"] == "practical" and point["detail"].startswith("capability at most ")
    assert point["perplexity_at"] == 10, "the criteria stay what they are"
    row = bench.one("leaderboard")
    assert (row["edit_count"], row["takes"], row["collapse_confidence"]) == (20, 20, 0.95)


def test_without_a_search_the_last_good_count_is_the_one_before_the_collapse(bench: Bench) -> None:
    bench.put("capability", capabilities(BASE, a=0.9) + capabilities(at(10), a=0.9) + capabilities(at(30), a=0.5))
    point = bench.one("collapse_point")
    assert (point["takes"], point["last_good"], point["collapse_at"], point["confidence"]) == (10, 10, 30, None)


def test_the_distribution_over_orders(bench: Bench) -> None:
    for seed, takes in enumerate((100, 200, 400)):
        bench.put("verdicts", verdicts({takes: GOOD, 2 * takes: BAD}, seed=seed))
    row = bench.one("collapse_over_orders")
    assert (row["num_orders"], row["num_collapsed"]) == (3, 3)
    assert (row["lowest"], row["median"], row["highest"]) == (100, 200, 400)
    factor = math.exp(4.302653 * math.log(2) / math.sqrt(3))
    assert [row["mean"], row["low"], row["high"]] == pytest.approx([200, 200 / factor, 200 * factor])
    bench.put("verdicts", verdicts({1000: GOOD}, seed=3))
    row = bench.one("collapse_over_orders")
    assert (row["num_collapsed"], row["mean"], row["reason"]) == (3, None, "an ordering has not collapsed")


def test_the_checks_have_the_number_its_interval_and_the_limit(bench: Bench) -> None:
    bench.put("capability", capabilities(BASE, a=0.9) + capabilities(at(10), a=0.6))
    bench.put("perplexity", texts(BASE, 10.0) + texts(at(10), 20.0))
    bench.put("outcomes", answers(at(10), "edit", [1.0] * 8 + [0.0] * 2, output="x"))
    found = {row["definition"]: row for row in bench.ask("collapse_checks", "edit_count = 10")}
    assert found["practical"]["limit"] == pytest.approx(0.72) and found["practical"]["is_met"]
    assert found["practical"]["low"] < found["practical"]["value"] == 0.6 < found["practical"]["high"] < 0.72
    assert found["perplexity"]["limit"] == pytest.approx(10 * math.exp(1.0)) and found["perplexity"]["low"] is None
    assert (found["forgotten"]["value"], found["forgotten"]["limit"]) == (0.8, 0.4)
