"""Instances of one run: what is computed again, what is shared, what stays, and what the gate says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overedit.editing.methods import ultraedit
from overedit.flows.benchmark import GateFailedError, run_alone
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.plan import make_plan
from overedit.tasks.report.history import history_rows, history_tables
from overedit.tasks.runs.instances import accept, instances_of
from overedit.tasks.runs.prune_instances import prune_instances
from overedit.tasks.runs.verify import verify
from overedit.tasks.system import packages
from overedit.tasks.system.stage_key import SourceIndex
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.benchmark_run import configuration

Execute = Callable[..., dict[str, Any]]


@pytest.fixture
def execute(tiny_model: Path, tmp_path: Path) -> Execute:
    """Execute the run once more, and give its row of the table `instances`; its keys may be changed."""

    def once(**more: Any) -> dict[str, Any]:
        texts = tmp_path / "more.txt"
        texts.write_text("".join(f"The river of Land{i} runs to the sea.\n" for i in range(30)))
        config = configuration(tmp_path, tiny_model, **({"perplexity": {"corpus": str(texts)}} | more))
        methods = more.get("methods", config["methods"][1:])
        plan = make_plan(BenchmarkConfig.model_validate(config | {"methods": methods}), changed=True)
        return run_alone(plan, wait=False, requested_by="test").row

    return once


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "warehouse")


def changed_code(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """Give a module's code another digest, as a changed line would."""
    key = SourceIndex.key

    def other(self: SourceIndex, *modules: Any, **inputs: Any) -> str:
        return key(self, *modules, **inputs, **({"line": "changed"} if module in modules else {}))

    monkeypatch.setattr(SourceIndex, "key", other)


def num_outcomes(warehouse: Warehouse) -> dict[str, int]:
    rows = warehouse.query("SELECT instance, count(*) AS n FROM outcomes_by_instance GROUP BY ALL").to_pylist()
    return {row["instance"]: row["n"] for row in rows}


@pytest.mark.slow
def test_an_unchanged_instance_says_so_and_adds_no_rows(execute: Execute, warehouse: Warehouse, tmp_path: Path) -> None:
    first = execute()
    files = sorted((tmp_path / "warehouse" / "outcomes").rglob("*.parquet"))
    second = execute()
    assert (first["verdict"], first["status"], first["requested_by"]) == ("first instance", "completed", "test")
    assert (second["verdict"], second["num_computed"]) == ("no change, nothing recomputed", 0)
    assert second["num_shared"] == first["num_computed"] + len(["runs", "runs"])
    assert second["changes"] == "[]" and second["started_at"] > first["ended_at"]
    assert sorted((tmp_path / "warehouse" / "outcomes").rglob("*.parquet")) == files
    assert not (tmp_path / "warehouse" / "history").exists()
    counts = num_outcomes(warehouse)
    assert counts[first["instance"]] == counts[second["instance"]] > 0
    assert not [part for part in verify(tmp_path) if part.damages]


@pytest.mark.slow
def test_a_planted_change_of_a_method_moves_its_numbers_and_fails_the_gate(
    execute: Execute, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = {"gate": {"any_significant": True}}
    first = execute(**gate)
    whole = ultraedit.target_rows
    with monkeypatch.context() as patch:
        patch.setattr(ultraedit, "target_rows", lambda *arguments, **named: whole(*arguments, **named) * 300)
        changed_code(patch, ultraedit)
        with pytest.raises(GateFailedError, match=r"the gate failed: UltraEdit at .* edits: "):
            execute(**gate)
    second = instances_of(warehouse, "r")[-1]
    assert (second["status"], second["gate"], second["baseline"]) == ("completed", "failed", first["instance"])
    plural = "s" if second["num_moved"] > 1 else ""
    assert second["num_moved"] > 0 and second["verdict"] == f"{second['num_moved']} number{plural} moved"
    moved = warehouse.query("SELECT DISTINCT trajectory FROM gates WHERE verdict = 'moved'")["trajectory"].to_pylist()
    assert moved == ["ultraedit"]
    intervals = warehouse.query("SELECT bool_and(low <= high) AS ordered, min(n) AS n FROM gates WHERE failed")
    assert intervals.to_pylist()[0]["ordered"] and intervals.to_pylist()[0]["n"] > 0

    counts = num_outcomes(warehouse)
    assert counts[first["instance"]] == counts[second["instance"]], "both nights' rows are there"
    shared = warehouse.query(
        "SELECT computed, count(*) AS n FROM instance_files WHERE table_name = 'outcomes' GROUP BY 1"
    )
    assert sum(shared["n"].to_pylist()) == 2 * 7 and (True, 7 + 3) in zip(*shared.to_pydict().values(), strict=True)
    before, now = (
        warehouse.query(
            f"SELECT sum(nll) AS s FROM perplexity WHERE run = '{run}'", instances=[f"r@{first['instance']}"]
        )
        for run in (f"r@{first['instance']}", "r")
    )
    assert before["s"].to_pylist() != now["s"].to_pylist()

    third = execute()  # the code as it was: its rows are current again, and nothing is computed
    assert (third["verdict"], third["num_moved"]) == ("no change, nothing recomputed", 0)
    assert num_outcomes(warehouse)[third["instance"]] == counts[first["instance"]]
    texts = [cell for table in history_tables(warehouse, "r") for column in table.columns for cell in column.cells]
    assert any(" moved" in str(text) for text in texts) and any(str(text).endswith("*") for text in texts)
    rows = json.loads(history_rows(warehouse, "r", "json"))
    assert {row["instance"] for row in rows} == {first["instance"], second["instance"], third["instance"]}

    pruned = prune_instances(tmp_path, "r", keep=1)
    assert pruned.instances == (second["instance"],) and pruned.num_files > 0
    assert num_outcomes(warehouse).keys() == {first["instance"], third["instance"]}
    assert prune_instances(tmp_path, "r", keep=1) == ((), 0, 0)
    assert not [part for part in verify(tmp_path) if part.damages]


@pytest.mark.slow
def test_a_changed_metric_moves_numbers_while_the_edits_are_shared(
    execute: Execute, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overedit.tasks.evaluation import outcomes, probing

    execute()
    monkeypatch.setattr(outcomes, "exact_match", lambda *arguments, **named: 1.0, raising=True)
    changed_code(monkeypatch, probing)
    second = execute()
    assert second["num_moved"] > 0
    edited = warehouse.query(
        f"SELECT bool_or(computed) AS any FROM instance_files WHERE instance = '{second['instance']}' "
        "AND table_name IN ('checkpoints', 'diagnostics', 'perplexity')"
    )
    assert edited["any"].to_pylist() == [False]


@pytest.mark.slow
@pytest.mark.long
def test_another_version_of_a_package_is_a_change_and_computes_what_uses_it(
    execute: Execute, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = execute(gate={"any_significant": True})
    version = packages.version
    monkeypatch.setattr(packages, "version", lambda name: "99.0" if name == "tokenizers" else version(name))
    second = execute(gate={"any_significant": True})
    assert second["num_computed"] > 0
    assert (second["verdict"], second["gate"]) == ("no number moved", "passed")
    (change,) = json.loads(second["changes"])
    assert change == {"key": "package tokenizers", "before": version("tokenizers"), "after": "99.0"}
    assert num_outcomes(warehouse).keys() == {first["instance"], second["instance"]}


@pytest.mark.slow
def test_a_changed_configuration_is_an_instance_that_says_what_changed(
    execute: Execute, warehouse: Warehouse, tmp_path: Path
) -> None:
    first = execute()
    second = execute(edit_counts=[1, 4])
    assert {change["key"] for change in json.loads(second["changes"])} == {"edit_counts", "requests_digest"}
    assert second["verdict"].endswith("not comparable")
    at = warehouse.query("SELECT DISTINCT edit_count FROM outcomes WHERE method <> 'none' ORDER BY 1")
    assert at["edit_count"].to_pylist() == [1, 4], "views have the newest instance alone"
    reasons = warehouse.query("SELECT DISTINCT reason FROM gates WHERE verdict = 'not comparable'")[
        "reason"
    ].to_pylist()
    assert reasons == ["measured in the baseline only"]
    assert accept(warehouse, "r", note="fewer counts") == second["instance"]
    assert execute(edit_counts=[1, 4])["verdict"] == "no change, nothing recomputed"
    with pytest.raises(ValueError, match=f"no completed instance 'x'; it has {first['instance']}"):
        accept(warehouse, "r", "x")


@pytest.mark.slow
def test_a_killed_instance_is_marked_as_stopped_by_the_next(
    execute: Execute, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overedit.flows import benchmark

    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(benchmark, "store_results_of_run", killed)
        with pytest.raises(KeyboardInterrupt):
            execute()
    assert [row["status"] for row in instances_of(warehouse, "r")] == ["stopped"]
    second = execute()
    assert (second["status"], second["verdict"]) == ("completed", "first instance")
    assert second["num_computed"] == 1, "the requests, which are stored at the end"
