"""Views of cheap probes: what warned of a loss of general ability, on rows whose results were worked out by hand."""

from __future__ import annotations

import math

import pytest

from tests.support.view_bench import BASE, Bench, Row, answers, at, capabilities, texts


def moved(point: Row, relative: float) -> Row:
    return point | {"parameter": "w", "weight_norm": 2.0, "base_norm": 2.0, "update_norm": 2 * relative}


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
        point = at(10 * i)
        bench.put("capability", capabilities(point, t=share))
        bench.put("outcomes", answers(point, "edit", [1.0]))
        bench.put("checkpoints", [moved(point, moves)])
        if nlls:
            bench.put("perplexity", texts(point, nlls[i - 1]))


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
