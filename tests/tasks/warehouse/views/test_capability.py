"""Views of what was kept: general ability, perplexity and weights, on rows whose results were worked out by hand."""

from __future__ import annotations

import math

import pytest

from tests.support.view_bench import BASE, Bench, answers, at, capabilities, texts

# ---- capability_by_edit_count


def test_capability_takes_the_headline_metrics_and_their_mean(bench: Bench) -> None:
    bench.put("capability", [row | {"stderr": 0.03} for row in capabilities(at(10), a=0.8)])
    bench.put("capability", [row | {"stderr": 0.04, "chance": 0.5} for row in capabilities(at(10), b=0.6)])
    bench.put("capability", [row | {"main": False, "metric": "acc_norm"} for row in capabilities(at(10), a=0.1)])
    found = {row["task"]: row for row in bench.ask("capability_by_edit_count")}
    assert found["a"]["value"] == 0.8
    assert (found["a"]["low"], found["a"]["high"]) == pytest.approx((0.8 - 0.0588, 0.8 + 0.0588), abs=1e-4)
    mean = found["mean"]
    assert (mean["value"], mean["n"], mean["num_tasks"], mean["chance"]) == (pytest.approx(0.7), 200, 2, 0.25)
    assert mean["high"] - mean["value"] == pytest.approx(1.959964 * 0.05 / 2, abs=1e-6)  # sqrt(0.03^2 + 0.04^2) / 2


def test_capability_without_a_usable_stderr_takes_wilson(bench: Bench) -> None:
    bench.put("capability", [row | {"stderr": 0.0} for row in capabilities(at(10), a=1.0)])
    bench.put("capability", capabilities(at(10), b=0.5))
    found = {row["task"]: row for row in bench.ask("capability_by_edit_count")}
    assert found["a"]["low"] == pytest.approx(100 / (100 + 1.959964**2), abs=1e-6) and found["a"]["high"] == 1.0
    assert found["b"]["low"] == pytest.approx(0.40383, abs=1e-5)


def test_a_mean_over_fewer_tasks_is_null_with_a_reason(bench: Bench) -> None:
    bench.put("capability", capabilities(BASE, a=0.9, b=0.8))
    bench.put("capability", capabilities(at(1), a=0.9))
    bench.put("capability", capabilities(at(10), a=0.9, b=math.nan))
    found = {row["edit_count"]: row for row in bench.ask("capability_by_edit_count", "task = 'mean'")}
    assert found[0]["value"] == pytest.approx(0.85)
    assert (found[1]["value"], found[1]["high"], found[1]["reason"]) == (None, None, "1 of 2 tasks measured")
    assert (found[10]["value"], found[10]["reason"]) == (None, "1 of 2 tasks measured")
    row = bench.one("capability_by_edit_count", "task = 'b' AND edit_count = 10")
    assert (row["value"], row["low"], row["high"], row["reason"]) == (None, None, None, "no finite value")


def test_a_group_counts_once_in_the_mean(bench: Bench) -> None:
    for point, lost in ((BASE, 0.0), (at(10), 0.2)):
        bench.put("capability", capabilities(point, mmlu=0.5 - lost, sst2=0.9))
        parts = capabilities(point, mmlu_law=0.3 - lost, mmlu_stem=0.6 - lost, mmlu_physics=0.6 - lost)
        bench.put("capability", [row | {"part_of": "mmlu"} for row in parts])
    rows = bench.ask("capability_by_edit_count", "edit_count = 10")
    found = {row["task"]: row for row in rows}
    mean = found["mean"]
    assert (mean["value"], mean["num_tasks"], mean["n"]) == (pytest.approx(0.6), 2, 200)
    assert found["mmlu_law"]["value"] == pytest.approx(0.1) and found["mmlu_law"]["part_of"] == "mmlu"
    assert [row["part_of"] for row in (mean, found["mmlu"], found["sst2"])] == [None] * 3


# ---- perplexity_by_edit_count


def test_perplexity_is_over_the_corpus_and_relative_to_the_base(bench: Bench) -> None:
    bench.put("perplexity", texts(BASE, 10.0, 10.0))
    bench.put("perplexity", texts(at(10), 20.0, 24.0))
    base = bench.one("perplexity_by_edit_count", "edit_count = 0")
    assert (base["value"], base["ratio"], base["low"], base["high"]) == pytest.approx((math.e, 1.0, math.e, math.e))
    row = bench.one("perplexity_by_edit_count", "edit_count = 10")
    assert (row["n"], row["num_tokens"], row["label"]) == (2, 20, "Fast")
    assert row["value"] == pytest.approx(math.exp(44 / 20))
    assert row["ratio"] == pytest.approx(math.exp(2.2 - 1.0))
    # residuals -2 and +2 around 22: sqrt((4 + 4) * 2 / 1) / 20 tokens = 0.2
    assert math.log(row["high"]) - 2.2 == pytest.approx(1.959964 * 0.2, abs=1e-6)


def test_perplexity_beyond_numbers_stays_what_it_is(bench: Bench) -> None:
    bench.put("perplexity", texts(at(1), 1e5))
    bench.put("perplexity", texts(at(10), math.nan))
    found = {row["edit_count"]: row for row in bench.ask("perplexity_by_edit_count")}
    assert found[1]["value"] == math.inf and found[1]["low"] is None and found[1]["ratio"] is None
    assert math.isnan(found[10]["value"]) and found[10]["low"] is None


# ---- reliability_vs_capability


def test_learned_and_kept_stand_in_one_row(bench: Bench) -> None:
    bench.put("outcomes", answers(BASE, "edit", [0, 0]))
    bench.put("outcomes", answers(at(10), "edit", [1, 0]) + answers(at(10), "locality", [1], agreement=1.0))
    bench.put("outcomes", answers(at(100), "edit", [1, 1]))
    bench.put(
        "capability", [row | {"chance": 0.5} for row in [*capabilities(BASE, a=0.9), *capabilities(at(10), a=0.6)]]
    )
    bench.put("perplexity", texts(BASE, 10.0) + texts(at(10), 20.0))
    found = {row["edit_count"]: row for row in bench.ask("reliability_vs_capability")}
    assert {count: row["reliability"] for count, row in found.items()} == {0: 0.0, 10: 0.5, 100: 1.0}
    row = found[10]
    assert (row["reliability_n"], row["locality"], row["generalization"], row["capability"]) == (2, 1.0, None, 0.6)
    assert row["capability_share"] == pytest.approx(0.25)  # (0.6 - 0.5) / (0.9 - 0.5)
    assert row["perplexity_ratio"] == pytest.approx(math.e)
    assert (found[100]["capability"], found[100]["perplexity_ratio"]) == (None, None)


# ---- weight_norms


def test_norms_of_tensors_taken_together(bench: Bench) -> None:
    tensors = {"p": (5.0, 4.0, 0.3), "q": (12.0, 3.0, 0.4)}
    names = ("weight_norm", "base_norm", "update_norm")
    bench.put("checkpoints", [at(10) | {"parameter": p} | dict(zip(names, v, strict=True)) for p, v in tensors.items()])
    found = {(row["edit_count"], row["parameter"]): row for row in bench.ask("weight_norms")}
    assert set(found) == {(count, name) for count in (0, 10) for name in ("p", "q", "all")}
    row = found[10, "all"]
    assert (row["weight_norm"], row["base_norm"], row["update_norm"]) == pytest.approx((13.0, 5.0, 0.5))
    assert row["relative_update"] == pytest.approx(0.1)
    assert found[10, "q"]["relative_update"] == pytest.approx(0.4 / 3)
    assert (found[0, "all"]["weight_norm"], found[0, "all"]["relative_update"]) == (pytest.approx(5.0), 0.0)
