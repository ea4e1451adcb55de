"""The view of what is left of edits after one more step, on rows whose results were worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from overedit.tasks.warehouse.tables import OF_CHECKPOINTS, after_table
from overedit.tasks.warehouse.views import view_names
from tests.support.view_bench import BASE, Bench, Row, answers, at, items, texts, with_headline

INT8 = at(100) | {"after": "quantize_int8"}


def asked(point: Row, probe: str, *scores: float | None, **more: Any) -> list[Row]:
    return [row | {"probe_index": 0} for row in answers(point, probe, list(scores), **more)]


def test_answers_are_compared_on_the_same_questions(bench: Bench) -> None:
    bench.put("outcomes", asked(at(100), "edit", 1, 1, 1, 0, None))
    bench.put("outcomes_after", asked(INT8, "edit", 1, 0, 0, 1, 1))
    row = bench.one("durability")
    assert (row["label"], row["edit_count"], row["after"]) == ("Fast", 100, "quantize_int8")
    assert (row["measure"], row["protocol"], row["n"]) == ("reliability", "generated", 4)
    assert (row["before"], row["value"], row["difference"]) == pytest.approx((0.75, 0.5, -0.25))
    assert row["kept"] == pytest.approx(2 / 3)
    # 2 lost, 1 gained of 4: middle -1 / 6; variance (3 + 1) / 6 - 1 / 36
    margin = 1.959964 * math.sqrt((4 / 6 - 1 / 36) / 6)
    assert (row["low"], row["high"]) == pytest.approx((-1 / 6 - margin, -1 / 6 + margin), abs=1e-6)


def test_locality_is_agreement_with_the_pristine_model(bench: Bench) -> None:
    bench.put("outcomes", asked(at(100), "locality", 1, 1, agreement=1.0))
    bench.put("outcomes_after", asked(INT8, "locality", 1, 1, agreement=0.5))
    row = bench.one("durability")
    assert (row["measure"], row["before"], row["value"]) == ("locality", 1.0, 0.5)


def test_items_of_benchmarks_are_pooled_by_the_headline_metric(bench: Bench) -> None:
    bench.put("capability", with_headline(at(100), "a", "b"))
    bench.put("capability_samples", items(at(100), "a", 1, 1) + items(at(100), "b", 1, math.nan))
    bench.put(
        "capability_samples_after", items(INT8, "a", 1, 0) + items(INT8, "b", 1, 1) + items(INT8, "a", 0, metric="f1")
    )
    row = bench.one("durability")
    assert (row["measure"], row["protocol"], row["n"]) == ("capability", None, 3)
    assert (row["before"], row["value"]) == pytest.approx((1.0, 2 / 3))


def test_perplexity_has_the_interval_of_its_ratio(bench: Bench) -> None:
    bench.put("perplexity", texts(at(100), 10.0, 20.0))
    bench.put("perplexity_after", texts(INT8, 11.0, 23.0))
    row = bench.one("durability")
    # changes 1 and 3 of 10 tokens each: mean 0.2 a token; residuals -1 and 1; standard error sqrt(2 * 2) / 20
    margin = 1.959964 * 2 / 20
    assert (row["measure"], row["n"]) == ("perplexity", 2)
    assert (row["before"], row["value"]) == pytest.approx((math.exp(1.5), math.exp(1.7)))
    assert row["low"] == pytest.approx(math.exp(1.5) * (math.exp(0.2 - margin) - 1), abs=1e-5)
    assert row["high"] == pytest.approx(math.exp(1.5) * (math.exp(0.2 + margin) - 1), abs=1e-5)
    bench.put("perplexity_after", texts(INT8 | {"after": "finetune:1"}, math.inf))
    broken = bench.one("durability", "after = 'finetune:1'")
    assert broken["value"] == math.inf and broken["low"] is None


@pytest.mark.long
def test_no_other_view_has_a_row_of_a_step(bench: Bench) -> None:
    """Every view but its own answers the same with and without the rows of `*_after`."""
    bench.put("outcomes", asked(at(100), "edit", 1, 1) + asked(BASE, "edit", 0, 0))
    bench.put("perplexity", texts(at(100), 10.0, 20.0) + texts(BASE, 10.0, 20.0))
    bench.put("capability", with_headline(at(100), "a") + with_headline(BASE, "a"))
    bench.put("capability_samples", items(at(100), "a", 1, 1) + items(BASE, "a", 1, 1))
    views = [name for name in view_names() if name != "durability"]
    before = {name: bench.ask(name) for name in views}
    bench.put("outcomes_after", asked(INT8, "edit", 0, 0))
    bench.put("perplexity_after", texts(INT8, 90.0, 90.0))
    bench.put("capability_after", [row | {"after": "quantize_int8"} for row in with_headline(at(100), "a")])
    bench.put("capability_samples_after", items(INT8, "a", 0, 0))
    bench.put("costs_after", [INT8 | {"stage": "after", "seconds": 1.0, "num_items": 1}])
    bench.put("checkpoints_after", [INT8 | {"parameter": "w", "update_norm": 9.0}])
    assert {name: bench.ask(name) for name in views} == before
    assert {row["measure"] for row in bench.ask("durability")} == {"reliability", "perplexity", "capability"}
    assert all(bench.ask(after_table(table)) for table in OF_CHECKPOINTS)
