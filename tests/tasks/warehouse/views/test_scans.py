"""Views of scans, in which each case is edited alone, on rows whose results were worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.support.view_bench import Bench, Row, at


def scanned(position: int, perplexity: float | None, *, base: float = 50.0, **more: Any) -> Row:
    ratio = None if perplexity is None else perplexity / base
    row = at(1) | {"label": "Fast", "position": position, "case_id": f"c{position}", "prompt": "A b", "subject": "A"}
    measures = {"perplexity": perplexity, "base_perplexity": base, "ratio": ratio, "seconds": 2.0, "learned": True}
    return row | measures | more


def test_hard_cases_are_those_beyond_a_limit_the_worst_first(bench: Bench) -> None:
    rows = [scanned(1, 500.0), scanned(2, 501.0), scanned(3, math.inf), scanned(4, None, error="singular")]
    rows += [scanned(5, math.nan), scanned(6, 9e9, subject=None)]
    bench.put("scans", rows)
    found = {row["position"]: (row["reason"], row["subject_first"]) for row in bench.ask("hard_cases")}
    assert found == {
        3: ("not finite", True),
        5: ("not finite", True),
        6: ("ratio", False),
        2: ("ratio", True),
    }
    assert list(found)[-2:] == [6, 2]


@pytest.mark.parametrize(("base", "perplexity", "reason"), [
    (400.0, 1001.0, "perplexity"), (400.0, 999.0, None), (600.0, 1001.0, None), (600.0, 6001.0, "ratio"),
])  # fmt: skip
def test_a_perplexity_that_is_high_already_breaks_nothing(
    bench: Bench, base: float, perplexity: float, reason: str | None
) -> None:
    bench.put("scans", [scanned(1, perplexity, base=base)])
    assert [row["reason"] for row in bench.ask("hard_cases")] == ([reason] if reason else [])


def test_a_scan_is_summed_up_by_where_the_subject_stands(bench: Bench) -> None:
    rows = [scanned(i, 5000.0 if i <= 2 else 60.0, seconds=float(i)) for i in range(1, 5)]
    rows += [scanned(5, 55.0, prompt="b A", learned=False), scanned(6, None, learned=None, error="singular")]
    bench.put("scans", rows)
    found = {row["subject"]: row for row in bench.ask("scan_summary")}
    assert set(found) == {"all", "first", "later"}
    first, every = found["first"], found["all"]
    assert (first["label"], first["n"], first["num_hard"], first["num_failed"]) == ("Fast", 4, 2, 1)
    assert (first["hard_share"], first["largest_ratio"], first["seconds_per_edit"]) == (0.5, 100.0, 2.5)
    assert first["low"] < 0.5 < first["high"]
    assert first["median_ratio"] == pytest.approx((5000 + 60) / 2 / 50)
    assert (every["n"], every["num_hard"], every["learned_share"]) == (5, 2, 0.8)
    assert (found["later"]["n"], found["later"]["num_hard"]) == (1, 0)
