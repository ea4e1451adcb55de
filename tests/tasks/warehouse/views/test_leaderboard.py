"""The views that list trajectories and compare them, on rows whose results were worked out by hand."""

from __future__ import annotations

import math

import pytest

from tests.support.view_bench import BASE, Bench, answers, at, capabilities, texts


def test_a_trajectory_is_known_from_its_first_trace(bench: Bench) -> None:
    bench.put("costs", [at(10, trajectory="new") | {"stage": "edit"}, BASE | {"stage": "engine_start"}])
    bench.put("checkpoints", [at(10) | {"parameter": "p"}])
    found = {row["trajectory"]: (row["label"], row["planned_edit_count"]) for row in bench.ask("trajectories")}
    assert found == {"fast": ("Fast", 100), "new": ("method_of_new", None)}


def test_the_leaderboard_is_taken_at_the_last_edit_count(bench: Bench) -> None:
    bench.put("runs", [at(100, trajectory="slow") | {"label": "Slow", "status": "failed"}])
    bench.put(
        "outcomes", answers(BASE, "edit", [0, 0]) + answers(at(10), "edit", [1]) + answers(at(100), "edit", [1, 0])
    )
    bench.put("outcomes", answers(at(100), "edit", [1, 1], protocol="teacher_forced"))
    bench.put("outcomes", answers(at(100), "rephrase", [0]) + answers(at(100), "locality", [0], agreement=1.0))
    bench.put("capability", capabilities(BASE, a=0.9) + capabilities(at(100), a=0.2))
    bench.put("perplexity", texts(BASE, 10.0) + texts(at(100), 20.0))
    edit = {"stage": "edit", "seconds": 9.0, "num_items": 90, "peak_memory_bytes": 1}
    bench.put("costs", [at(10) | edit | {"seconds": 5.0, "peak_memory_bytes": 7}, at(100) | edit])
    first, second = bench.ask("leaderboard")
    assert (first["label"], first["edit_count"], first["reliability"], first["reliability_n"]) == ("Fast", 100, 0.5, 2)
    assert (first["generalization"], first["locality"], first["portability"]) == (0.0, 1.0, None)
    assert (first["capability"], first["base_capability"], first["seconds_per_edit"]) == (0.2, 0.9, 0.1)
    assert (first["peak_memory_bytes"], first["collapse_at"], first["collapse_reason"]) == (7, 100, "capability")
    assert first["perplexity_ratio"] == pytest.approx(math.e)
    assert (second["label"], second["edit_count"], second["reliability"], second["status"]) == (
        "Slow",
        0,
        0.0,
        "failed",
    )
