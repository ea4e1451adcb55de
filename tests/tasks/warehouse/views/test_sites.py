"""The views of a search among sites, on rows whose results were worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.support.view_bench import BASE, Bench, Row, at


def scored(site: str | None, measure: str, values: dict[str, float | None], **more: Any) -> list[Row]:
    """Rows of a site by item; without a site those of the pristine model."""
    split, seed = more.pop("split", "validation"), more.pop("seed", 0)
    general = {"protocol": None} if measure in ("capability", "perplexity", "seconds", "failure") else {}
    if site is None:
        point: Row = BASE | {"label": "Fast"}
    else:
        layer, part = site.split(".")
        point = at(4, trajectory=site.replace(".", "-"), seed=seed) | {"method": "fast", "label": "Fast"}
        point |= {"site": site, "layer": int(layer), "part": part}
    common = {"split": split, "measure": measure, "protocol": "generated", "n": 1} | general
    return [point | common | more | {"item": item, "value": value} for item, value in values.items()]


def site(name: str, reliability: list[float], locality: list[float], **more: Any) -> list[Row]:
    numbered = [{str(i): value for i, value in enumerate(values)} for values in (reliability, locality)]
    return scored(name, "reliability", numbered[0], **more) + scored(name, "locality", numbered[1], **more)


def test_the_best_site_is_first_and_the_score_is_the_mean_of_what_was_measured(bench: Bench) -> None:
    bench.put("site_scores", site("0.mlp", [1, 1, 1, 0], [1, 1, 0, 0]))
    bench.put("site_scores", site("1.down_proj", [1, 1, 1, 1], [1, 1, 1, 0]))
    found = bench.ask("site_ranking")
    assert [(row["site"], row["rank"], row["proposed"]) for row in found] == [
        ("1.down_proj", 1, True), ("0.mlp", 2, False),
    ]  # fmt: skip
    best, other = found
    assert (best["reliability"], best["locality"], best["generalization"]) == (1, 0.75, None)
    assert (best["score"], other["score"], other["behind"]) == (0.875, 0.625, -0.25)
    # residuals of the edits, halves of (value - mean): 0.125 three times and -0.375; 0.375, 0.375, -0.125 and -0.625
    error = math.sqrt((3 * 0.125**2 + 0.375**2 + 0.5) / (4 * 6))
    assert best["low"] == pytest.approx(0.875 - 1.959964 * error)
    assert best["high"] == 1
    error = math.sqrt((2 * 0.375**2 + 0.125**2 + 0.625**2 + 0.5) / (4 * 6))
    assert (other["low"], other["high"]) == pytest.approx((0.625 - 1.959964 * error, 1.0))
    # paired: the differences of the residuals are 0.25, 0.25, -0.25, -0.25
    error = math.sqrt((4 * 0.25**2 + 0.5) / (4 * 6))
    assert other["behind_low"] == pytest.approx(-0.25 - 1.959964 * error)
    assert other["behind_high"] == pytest.approx(-0.25 + 1.959964 * error)
    assert best["behind"] == best["behind_low"] == best["behind_high"] == 0


def test_capability_is_what_is_kept_above_chance(bench: Bench) -> None:
    tasks = {"a": 0.9, "b": 0.7}
    bench.put("site_scores", scored(None, "capability", tasks, chance=0.2, stderr=0.0, n=50))
    bench.put("site_scores", scored(None, "perplexity", {"c": 20.0}))
    bench.put("site_scores", site("0.mlp", [1, 1], [1, 1]))
    bench.put("site_scores", scored("0.mlp", "capability", {"a": 0.5, "b": 0.5}, chance=0.2, stderr=0.06, n=50))
    bench.put("site_scores", scored("0.mlp", "perplexity", {"c": 30.0}))
    bench.put("site_scores", scored("0.mlp", "seconds", {"editing": 2.0, "answers": 3.0}))
    row = bench.one("site_ranking")
    assert row["capability_kept"] == pytest.approx(0.3 / 0.6)
    assert row["score"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert (row["perplexity_ratio"], row["seconds"]) == (1.5, 5.0)
    kept = math.sqrt(2 * 0.06**2) / 2 / 0.6 / 3
    assert row["low"] == pytest.approx(row["score"] - 1.959964 * math.sqrt(0.5 / (2 * 4) + kept**2))
    capability = bench.one("site_measures", "measure = 'capability' AND site IS NOT NULL")
    assert (capability["value"], capability["n"], capability["chance"]) == (0.5, 2, 0.2)
    assert capability["low"] == pytest.approx(0.5 - 1.959964 * math.sqrt(2 * 0.06**2) / 2)


def test_seeds_are_averaged_and_count_once(bench: Bench) -> None:
    bench.put("site_scores", site("0.mlp", [1, 0], [1, 1]))
    bench.put("site_scores", site("0.mlp", [0, 0], [1, 1], seed=1))
    row = bench.one("site_ranking")
    assert (row["reliability"], row["num_seeds"]) == (0.25, 2)
    measure = bench.one("site_measures", "measure = 'reliability'")
    assert (measure["value"], measure["n"], measure["edit_count"]) == (0.25, 2, 4)
    assert measure["low"] < 0.25 < measure["high"]


def test_a_site_that_failed_is_last_and_says_why(bench: Bench) -> None:
    reason = "the weights are not finite"
    bench.put("site_scores", scored("0.layer", "failure", {"editing": None}, reason=reason))
    assert [row["proposed"] for row in bench.ask("site_ranking")] == [False]
    bench.put("site_scores", site("1.mlp", [0, 0], [0, 0]))
    found = {row["site"]: row for row in bench.ask("site_ranking")}
    assert (found["0.layer"]["score"], found["0.layer"]["reason"]) == (None, reason)
    assert found["1.mlp"]["proposed"] and not found["0.layer"]["proposed"]


def test_test_edits_are_ranked_apart_and_propose_nothing(bench: Bench) -> None:
    bench.put("site_scores", site("0.mlp", [1, 1], [1, 1]) + site("1.mlp", [1, 0], [1, 1]))
    bench.put("site_scores", site("0.mlp", [0, 1], [1, 1], split="test") + site("1.mlp", [1, 1], [1, 1], split="test"))
    found = {(row["split"], row["site"]): row for row in bench.ask("site_ranking")}
    assert [key for key, row in found.items() if row["proposed"]] == [("validation", "0.mlp")]
    assert found["test", "0.mlp"]["rank"] == 2
    assert found["test", "0.mlp"]["behind"] == -0.25
