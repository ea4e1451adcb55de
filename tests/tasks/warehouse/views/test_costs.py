"""Views of the turns of editing: their logs, speed and cost, on rows whose results were worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from overedit.tasks.runs.records import diagnostics, turn_seconds
from tests.support.view_bench import Bench, at

# ---- diagnostics_by_turn


def test_diagnostics_are_the_numbers_of_the_turns_logs(bench: Bench) -> None:
    logs = [
        {"first": 1, "last": 5, "finite": True, "loss": 0.25, "5.down_proj/update_norm": 3.0, "stopped": "early"},
        {"first": 6, "last": 10, "finite": True, "loss": 0.5, "5.down_proj/update_norm": 2.0},
    ]
    bench.put("diagnostics", [at(10) | row for row in diagnostics(logs)])
    found = [
        (r["last_edit"], r["site"], r["quantity"], r["value"], r["so_far"]) for r in bench.ask("diagnostics_by_turn")
    ]
    assert found == [
        (5, None, "finite", 1.0, 1.0),
        (5, None, "loss", 0.25, 0.25),
        (5, "5.down_proj", "update_norm", 3.0, 3.0),
        (10, None, "finite", 1.0, 1.0),
        (10, None, "loss", 0.5, 0.5),
        (10, "5.down_proj", "update_norm", 2.0, 3.0),
    ]


# ---- edit_speed


def test_speed_is_the_median_turn_of_a_stretch(bench: Bench) -> None:
    bench.put("diagnostics", [at(1) | row for row in turn_seconds([{"first": 1, "last": 1}], [0.5])])
    later = [{"first": 2, "last": 10}, *({"first": edits - 9, "last": edits} for edits in range(20, 401, 10))]
    seconds = [0.9, *[0.1] * 9, 0.2, 0.4, 0.3, *[0.5] * 27]
    bench.put("diagnostics", [at(400) | row for row in turn_seconds(later, seconds)])
    bench.put("diagnostics", [at(400) | row for row in diagnostics([{"first": 1, "last": 9, "loss": 7.0}])])
    found = [(r["first_edit"], r["edits"], r["turns"], r["seconds_per_1000_edits"]) for r in bench.ask("edit_speed")]
    assert found[:4] == [(1, 1, 1, 500), (2, 10, 1, pytest.approx(100)), (11, 20, 1, 10), (21, 30, 1, 10)]
    assert found[-3:] == [(101, 200, 10, 50), (201, 300, 10, 50), (301, 400, 10, 50)]
    assert sum(turns for *_, turns, _ in found) == 41


def test_speed_of_a_cumulative_method_is_by_all_edits(bench: Bench) -> None:
    for count in (10, 100):
        bench.put("diagnostics", [at(count) | row for row in turn_seconds([{"first": 1, "last": count}], [2.0])])
    assert [(r["edits"], r["seconds_per_1000_edits"]) for r in bench.ask("edit_speed")] == [(10, 200), (100, 20)]


# ---- cost_per_edit


def test_cost_is_of_editing_alone(bench: Bench) -> None:
    step = {"stage": "edit", "seconds": 6.0, "num_items": 90, "peak_memory_bytes": 100}
    rest = {"stage": "edit", "seconds": 3.0, "num_items": 10, "peak_memory_bytes": 300}  # after an interruption
    bench.put(
        "costs", [at(100) | step, at(100) | rest, at(100) | {"stage": "generate", "seconds": 1e3, "num_items": 5}]
    )
    row = bench.one("cost_per_edit")
    assert (row["seconds"], row["edits"], row["peak_memory_bytes"], row["label"]) == (9.0, 100, 300, "Fast")
    assert (row["seconds_per_edit"], row["edits_per_second"]) == pytest.approx((0.09, 100 / 9))


# ---- overlap


def test_overlap_is_the_time_in_which_both_went_on(bench: Bench) -> None:
    """Edits from 0 to 10 and 8 to 14, a step after them to 15; measuring from 10 to 12, 11 to 13 and 20 to 24."""
    start = datetime(2026, 11, 30, tzinfo=UTC)
    spans = [("edit", 10, 10), ("edit", 6, 14), ("swap", 2, 12), ("generate", 2, 13), ("capability", 4, 24)]
    rows = [
        {"stage": stage, "seconds": float(s), "ended_at": start + timedelta(seconds=end)} for stage, s, end in spans
    ]
    earlier = {"stage": "generate", "seconds": 1e6}  # of a version that did not say when
    bench.put("costs", [at(10) | row for row in (*rows, {"stage": "engine_start", "seconds": 99.0}, earlier)])
    step = {"stage": "after", "seconds": 1.0, "ended_at": start + timedelta(seconds=15), "after": "quantize_int8"}
    bench.put("costs_after", [at(10) | step])
    row = bench.one("overlap")
    assert (row["editing_seconds"], row["measuring_seconds"], row["both_seconds"], row["busy_seconds"]) == (
        15,
        7,
        3,
        19,
    )
    assert row["share"] == pytest.approx(3 / 19)
