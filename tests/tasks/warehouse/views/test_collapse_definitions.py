"""Views of collapse by several definitions and of forgetting, on rows whose results were worked out by hand."""

from __future__ import annotations

import math

import pytest

from overedit.tasks.warehouse.views import view_sql
from tests.support.view_bench import BASE, Bench, Row, answers, at, capabilities, items, texts, with_headline

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
