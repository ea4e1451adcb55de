"""Every view on a handful of rows whose results were worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from overedit.tasks.runs.records import diagnostics, turn_seconds
from overedit.tasks.warehouse.views import needed, view_names, view_sql
from overedit.tasks.warehouse.warehouse import Warehouse

Row = dict[str, Any]


def at(edit_count: int, *, trajectory: str = "fast", seed: int = 0) -> Row:
    """The identity of a point; the trajectory `base` is the pristine model."""
    return {
        "run": "r",
        "trajectory": trajectory,
        "model": "m",
        "method": "none" if trajectory == "base" else f"method_of_{trajectory}",
        "dataset": "d",
        "order_seed": seed,
        "edit_count": edit_count,
    }


BASE = at(0, trajectory="base")


class Bench:
    """A warehouse to put rows in and to ask."""

    def __init__(self, root: Path) -> None:
        self.warehouse = Warehouse(root)
        self.parts = 0

    def put(self, table: str, rows: Iterable[Row]) -> None:
        self.parts += 1
        self.warehouse.write(table, list(rows), partition={"run": "r"}, key="k", part=str(self.parts))

    def ask(self, view: str, where: str = "true") -> list[Row]:
        return list(self.warehouse.query(f"SELECT * FROM {view} WHERE {where}").to_pylist())

    def one(self, view: str, where: str = "true") -> Row:
        (row,) = self.ask(view, where)
        return row


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """With one trajectory `fast`, called Fast, that was to take 100 edits."""
    bench = Bench(tmp_path)
    bench.put("runs", [at(100) | {"label": "Fast", "status": "completed"}])
    return bench


def answers(place: Row, probe: str, scores: list[float | None], **more: Any) -> list[Row]:
    made = []
    for number, score in enumerate(scores, 1):
        row = {"position": number, "case_id": str(number), "probe": probe, "protocol": "generated", "score": score}
        made.append(place | row | more)
    return made


def capabilities(place: Row, **values: float | None) -> list[Row]:
    common = {"metric": "acc", "main": True, "num_samples": 100, "stderr": None, "chance": 0.0}
    return [place | common | {"task": task, "value": value} for task, value in values.items()]


def texts(place: Row, *nlls: float) -> list[Row]:
    return [place | {"corpus": "c", "text_id": i, "nll": nll, "num_tokens": 10} for i, nll in enumerate(nlls)]


def test_every_view_is_tested_and_says_what_it_is() -> None:
    tested = "".join(path.read_text() for path in Path(__file__).parents[2].rglob("test_*.py"))
    for view in view_names():
        assert view_sql(view).startswith("-- ")
        assert f'"{view}"' in tested, f"{view} has no test"


def test_a_query_takes_the_views_that_it_names_and_those_that_they_take() -> None:
    taken = needed("SELECT * FROM Capability_Change JOIN outcomes USING (run)")
    assert taken == {"capability_change", "trajectories"}
    assert needed("SELECT * FROM outcomes") == set()
    assert needed("SHOW TABLES") is None
    assert needed("") is None
    assert needed("SELECT 1") == set()
    for sql in ("SELECT * FROM information_schema.tables", "SELECT (TABLE sqlite_master)", "FROM duckdb_views()"):
        assert needed(sql) is None
    assert needed("SELECT * FROM leader_board") is None, "the error names every view"


# ---- intervals


def test_wilson_bounds_are_the_textbook_ones(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)

    def bounds(p: str, n: str) -> tuple[float | None, float | None]:
        row = warehouse.query(f"SELECT wilson_low({p}, {n}) AS low, wilson_high({p}, {n}) AS high").to_pylist()[0]
        return row["low"], row["high"]

    # 8 of 10: centre (0.8 + 0.19207) / 1.38415, half-width 1.95996 sqrt(0.016 + 0.0096036) / 1.38415
    assert bounds("0.8", "10") == pytest.approx((0.49016, 0.94332), abs=1e-5)
    assert bounds("0.0", "10") == pytest.approx((0.0, 0.27753), abs=1e-5)  # z^2 / (n + z^2)
    assert bounds("1.0", "10") == pytest.approx((0.72247, 1.0), abs=1e-5)
    assert bounds("NULL", "10") == (None, None)
    assert bounds("0.5", "0") == (None, None)


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
    for place, lost in ((BASE, 0.0), (at(10), 0.2)):
        bench.put("capability", capabilities(place, mmlu=0.5 - lost, sst2=0.9))
        parts = capabilities(place, mmlu_law=0.3 - lost, mmlu_stem=0.6 - lost, mmlu_physics=0.6 - lost)
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


# ---- collapse_point


def test_no_collapse_is_a_row_with_null(bench: Bench) -> None:
    bench.put("capability", capabilities(BASE, a=0.9) + capabilities(at(10), a=0.9) + capabilities(at(100), a=0.85))
    row = bench.one("collapse_point")
    assert (row["collapse_at"], row["reason"], row["detail"]) == (None, None, None)
    assert (row["measured_up_to"], row["planned_edit_count"], row["status"]) == (100, 100, "completed")


def test_nothing_measured_is_a_row_too(bench: Bench) -> None:
    bench.put("runs", [at(50, trajectory="broken") | {"label": "B", "status": "failed", "error": "NaN in the loss"}])
    row = bench.one("collapse_point", "trajectory = 'broken'")
    assert (row["collapse_at"], row["measured_up_to"], row["status"]) == (None, None, "failed")
    assert row["error"] == "NaN in the loss"


def test_collapse_by_capability_asks_the_upper_bound(bench: Bench) -> None:
    # base 0.9: the limit is 0.72. With half of Wilson's width 0.65 is at most 0.7417 (no), 0.60 at most 0.6943
    bench.put("capability", capabilities(BASE, a=0.9) + capabilities(at(10), a=0.65) + capabilities(at(100), a=0.6))
    row = bench.one("collapse_point")
    assert (row["collapse_at"], row["reason"], row["capability_at"], row["perplexity_at"]) == (
        100,
        "capability",
        100,
        None,
    )
    assert row["detail"] == "capability 60.0 % (at most 69.4 %), 90.0 % before editing, chance 0.0 %"


def test_collapse_by_capability_subtracts_chance(bench: Bench) -> None:
    # 0.65 against 0.9 at chance 0.5: the limit is 0.5 + 0.8 * 0.4 = 0.82, and 0.65 -> at most 0.7417
    rows = capabilities(BASE, a=0.9) + capabilities(at(10), a=0.65)
    bench.put("capability", [row | {"chance": 0.5} for row in rows])
    assert bench.one("collapse_point")["collapse_at"] == 10


def test_no_verdict_where_the_base_is_not_above_chance(bench: Bench) -> None:
    rows = capabilities(BASE, a=0.5) + capabilities(at(10), a=0.1)
    bench.put("capability", [row | {"chance": 0.5} for row in rows])
    assert bench.one("collapse_point")["collapse_at"] is None


@pytest.mark.parametrize(("nll", "collapse_at"), [(32.9, None), (33.1, 10), (math.nan, 10), (1e6, 10)])
def test_collapse_by_perplexity(bench: Bench, nll: float, collapse_at: int | None) -> None:
    bench.put("perplexity", texts(BASE, 10.0) + texts(at(10), nll))  # ten times: exp(1.0 + 2.3026)
    row = bench.one("collapse_point")
    assert (row["collapse_at"], row["reason"]) == (collapse_at, "perplexity" if collapse_at else None)


@pytest.mark.parametrize(("empty", "collapse_at"), [(2, None), (3, 10)])
def test_collapse_by_empty_outputs(bench: Bench, empty: int, collapse_at: int | None) -> None:
    rows = answers(at(10), "portability", [None] * 4, reason="score: none")
    bench.put("outcomes", [row | {"output": "" if i < empty else "word"} for i, row in enumerate(rows)])
    assert bench.one("collapse_point")["empty_at"] == collapse_at


def test_collapse_by_reliability_is_against_its_best(bench: Bench) -> None:
    bench.put("outcomes", answers(BASE, "edit", [0.0] * 10, output="x"))
    bench.put("outcomes", answers(at(10), "edit", [1.0] * 8 + [0.0] * 2, output="x"))  # 0.8: half is 0.4
    bench.put("outcomes", answers(at(50), "edit", [1.0] * 15 + [0.0] * 35, output="x"))  # 0.3, at most 0.4375: not sure
    bench.put("outcomes", answers(at(100), "edit", [1.0] * 25 + [0.0] * 75, output="x"))  # 0.25, at most 0.3430
    row = bench.one("collapse_point")
    assert (row["collapse_at"], row["reason"], row["reliability_at"]) == (100, "reliability", 100)
    assert row["detail"] == "reliability 25.0 % (at most 34.3 %), best 80.0 %"


def test_collapse_by_weights_names_the_turn(bench: Bench) -> None:
    bench.put("perplexity", texts(BASE, 10.0) + texts(at(5), 11.0))
    logs = [
        {"first": 6, "last": 8, "finite": True, "loss": 0.5},
        {"first": 9, "last": 10, "finite": False, "loss": 9.0},
    ]
    bench.put("diagnostics", [at(10) | row for row in diagnostics(logs)])
    row = bench.one("collapse_point")
    assert (row["collapse_at"], row["reason"], row["weights_at"], row["measured_up_to"]) == (10, "weights", 10, 10)
    assert row["detail"] == "weights that are not finite, after the turn of edits 9 to 10"


def test_the_first_criterion_decides_and_ties_are_named(bench: Bench) -> None:
    bench.put("capability", capabilities(BASE, a=0.9) + capabilities(at(10), a=0.1) + capabilities(at(100), a=0.1))
    bench.put("perplexity", texts(BASE, 10.0) + texts(at(1), 11.0) + texts(at(10), 90.0))
    bench.put("outcomes", [row | {"output": ""} for row in answers(at(100), "edit", [0.0])])
    row = bench.one("collapse_point")
    assert (row["collapse_at"], row["reason"]) == (10, "capability and perplexity")
    assert (row["capability_at"], row["perplexity_at"], row["empty_at"]) == (10, 10, 100)


def test_orderings_collapse_on_their_own(bench: Bench) -> None:
    bench.put("runs", [at(100, seed=1) | {"label": "Fast"}])
    for seed, nll in ((0, 11.0), (1, 90.0)):
        bench.put("perplexity", texts(at(0, trajectory="base", seed=seed), 10.0) + texts(at(10, seed=seed), nll))
    assert {row["order_seed"]: row["collapse_at"] for row in bench.ask("collapse_point")} == {0: None, 1: 10}


# ---- trajectories and leaderboard


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


# ---- scans


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
