"""Views of what was learned, remembered and generated, on rows whose results were worked out by hand."""

from __future__ import annotations

import pytest

from tests.support.view_bench import BASE, Bench, answers, at

# ---- reliability_by_edit_count


def test_measures_are_means_of_their_own_probe_and_protocol(bench: Bench) -> None:
    bench.put("outcomes", answers(at(10), "edit", [1, 1, 1, 0]))
    bench.put("outcomes", answers(at(10), "edit", [0.5, 1.0], protocol="teacher_forced"))
    bench.put("outcomes", answers(at(10), "rephrase", [1, 0]))
    bench.put("outcomes", answers(at(10), "portability", [0]))
    rows = {(row["measure"], row["protocol"]): row for row in bench.ask("reliability_by_edit_count")}
    assert {key: (row["value"], row["n"]) for key, row in rows.items()} == {
        ("reliability", "generated"): (0.75, 4),
        ("reliability", "teacher_forced"): (0.75, 2),
        ("generalization", "generated"): (0.5, 2),
        ("portability", "generated"): (0.0, 1),
    }
    row = rows["reliability", "generated"]
    assert (row["label"], row["method"], row["edit_count"]) == ("Fast", "method_of_fast", 10)
    assert (row["low"], row["high"]) == pytest.approx((0.30064, 0.95441), abs=1e-5)


def test_locality_is_agreement_and_the_gold_score_stands_beside_it(bench: Bench) -> None:
    bench.put("outcomes", answers(at(10), "locality", [0, 0, 1], agreement=1.0))
    bench.put("outcomes", answers(at(10), "locality", [0], agreement=0.0))
    assert bench.one("reliability_by_edit_count", "measure = 'locality'")["value"] == 0.75
    assert bench.one("reliability_by_edit_count", "measure = 'locality_gold'")["value"] == 0.25


def test_what_cannot_be_scored_is_null_with_a_reason_and_counts_nowhere(bench: Bench) -> None:
    lost = {"reason": "score: overwritten by case 7; agreement: the pristine model was not asked"}
    bench.put("outcomes", [*answers(at(10), "edit", [1, 1]), *answers(at(10), "edit", [None], **lost)])
    bench.put("outcomes", answers(at(10), "locality", [None, None], reason="score: no gold answer; agreement: none"))
    row = bench.one("reliability_by_edit_count", "measure = 'reliability'")
    assert (row["value"], row["n"], row["unscored"], row["reason"]) == (1.0, 2, 1, "overwritten by another case")
    row = bench.one("reliability_by_edit_count", "measure = 'locality_gold'")
    assert (row["value"], row["n"], row["low"], row["high"]) == (None, 0, None, None)
    assert (row["unscored"], row["reason"]) == (2, "no gold answer")
    assert bench.one("reliability_by_edit_count", "measure = 'locality'")["reason"] == "none"


def test_the_pristine_model_starts_every_trajectory_of_its_ordering(bench: Bench) -> None:
    bench.put("runs", [at(100, trajectory="slow") | {"label": "Slow"}, at(100, seed=1) | {"label": "Fast"}])
    bench.put("outcomes", answers(BASE, "edit", [0, 0, 0, 1]))
    bench.put("outcomes", answers(at(0, trajectory="base", seed=1), "edit", [0, 1]))
    bench.put("outcomes", answers(at(1), "edit", [1]))
    found = {
        (row["label"], row["order_seed"], row["edit_count"]): row["value"]
        for row in bench.ask("reliability_by_edit_count")
    }
    assert found == {
        ("Fast", 0, 0): 0.25,
        ("Fast", 0, 1): 1.0,
        ("Fast", 1, 0): 0.5,
        ("Slow", 0, 0): 0.25,
    }


def test_the_pristine_model_agrees_with_itself_by_definition(bench: Bench) -> None:
    bench.put("outcomes", answers(BASE, "locality", [0, 1], agreement=None, reason="agreement: not asked"))
    row = bench.one("reliability_by_edit_count", "measure = 'locality'")
    assert (row["value"], row["n"], row["low"], row["high"], row["reason"]) == (1.0, 2, 1.0, 1.0, "by definition")
    assert bench.one("reliability_by_edit_count", "measure = 'locality_gold'")["value"] == 0.5


def test_a_trajectory_that_has_not_ended_goes_by_its_method(bench: Bench) -> None:
    bench.put("outcomes", answers(at(1, trajectory="new"), "edit", [1]))
    row = bench.one("reliability_by_edit_count", "trajectory = 'new'")
    assert (row["label"], row["value"]) == ("method_of_new", 1.0)


# ---- retention_by_age


def test_age_is_counted_in_decades(bench: Bench) -> None:
    bench.put("outcomes", answers(at(1000), "edit", [1] * 1000))  # positions 1 to 1,000: ages 999 to 0
    found = {row["age"]: (row["age_low"], row["age_high"], row["n"]) for row in bench.ask("retention_by_age")}
    assert found == {"0": (0, 0, 1), "1-9": (1, 9, 9), "10-99": (10, 99, 90), "100-999": (100, 999, 900)}


def test_decades_hold_where_logarithms_round(bench: Bench) -> None:
    for power in range(1, 10):
        rows = answers(at(10**power + 1), "edit", [1])  # position 1: age 10 ** power
        bench.put("outcomes", rows)
    assert [row["age_low"] for row in bench.ask("retention_by_age")] == [10**power for power in range(1, 10)]


def test_retention_is_the_score_of_edits_of_an_age(bench: Bench) -> None:
    bench.put("outcomes", answers(at(11), "edit", [0, 1, 0, 0, 0, 0, 0, 0, 0, None, 1], reason="score: lost"))
    bench.put("outcomes", answers(at(11), "rephrase", [1]))
    bench.put("outcomes", answers(BASE, "edit", [1]))
    found = {row["age"]: row for row in bench.ask("retention_by_age")}
    assert {age: (row["value"], row["n"], row["unscored"]) for age, row in found.items()} == {
        "0": (1.0, 1, 0),
        "1-9": (0.125, 8, 1),
        "10-99": (0.0, 1, 0),
    }
    assert found["1-9"]["reason"] == "lost"
    assert found["10-99"]["high"] == pytest.approx(0.79345, abs=1e-5)


# ---- text_health


def test_empty_and_repetitive_outputs_are_counted(bench: Bench) -> None:
    outputs = [
        "",
        " \n\t",
        "Paris",
        "The the THE the the of of of",  # 8 words, 5 of them one
        "the the the the of of of of",  # half is not more than half
        "no no no no no no no",  # 7 words are too few
        "a b c d e f g h",
        "a\n a a\ta a b b b ",  # 8 words, 5 of them one, blanks of every kind
    ]
    rows = answers(at(10), "edit", [0.0] * len(outputs), num_tokens=4, finish_reason="length")
    bench.put("outcomes", [row | {"output": output} for row, output in zip(rows, outputs, strict=True)])
    bench.put("outcomes", answers(at(10), "edit", [1.0], protocol="teacher_forced"))
    row = bench.one("text_health")
    assert (row["n"], row["empty"], row["repetitive"], row["mean_tokens"], row["length_share"]) == (
        8,
        0.25,
        0.25,
        4.0,
        1.0,
    )
    assert (row["empty_low"], row["empty_high"]) == pytest.approx((0.07148, 0.59073), abs=1e-5)


def test_texts_of_unknown_length_and_ending_have_no_mean_of_them(bench: Bench) -> None:
    bench.put("outcomes", answers(at(10), "edit", [1.0], output="Paris"))
    row = bench.one("text_health")
    assert (row["n"], row["empty"], row["mean_tokens"], row["length_share"]) == (1, 0.0, None, None)


def test_the_pristine_models_text_starts_the_line(bench: Bench) -> None:
    bench.put("outcomes", answers(BASE, "edit", [0.0], output="x", num_tokens=1, finish_reason="eos"))
    row = bench.one("text_health")
    assert (row["trajectory"], row["edit_count"], row["empty"], row["length_share"]) == ("fast", 0, 0.0, 0.0)
