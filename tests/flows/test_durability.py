"""A whole run whose checkpoints are quantized, merged and trained further, and measured again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from overedit.editing.trajectory.checkpoint import read_checkpoint
from overedit.flows.benchmark import run_alone
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.durability import chosen_counts
from overedit.flows.plan import make_plan
from overedit.tasks.evaluation import evaluator
from overedit.tasks.models.export import export_checkpoint
from overedit.tasks.report.data import collect
from overedit.tasks.report.findings import durability_markdown
from overedit.tasks.runs.instances import Instance
from overedit.tasks.runs.prune import prune_run
from overedit.tasks.runs.verify import verify
from overedit.tasks.warehouse.tables import RESULTS, after_table
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.benchmark_run import configuration, digests, rows_of

STEPS = ("quantize_int4", "merge_base:0.5", "finetune:3")
COUNT = 4


def config_in(folder: Path, model: Path, **more: Any) -> BenchmarkConfig:
    given = configuration(
        folder,
        model,
        methods=[{"method": "ft_m", "site": "1.down_proj", "max_steps": 2}],
        edit_counts=[1, COUNT],
        evaluation={"protocols": ["teacher_forced"], "probes": ["edit", "locality"]},
        perplexity={"corpus": str(folder / "texts.txt"), "limit": 1},
        after=STEPS,
        after_finetune={"learning_rate": 1e-3},
        **more,
    )
    return BenchmarkConfig.model_validate(given)


def run(config: BenchmarkConfig) -> Instance:
    return run_alone(make_plan(config), wait=False)


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is complete, to be read alone."""
    folder = tmp_path_factory.mktemp("durability")
    run(config_in(folder, tiny_model))
    return folder


def derived(home: Path, step: str) -> Path:
    return home / "runs" / "r" / "ft-m" / "order-0" / "after" / step.replace(":", "-") / f"{COUNT:08d}"


def test_each_step_has_a_checkpoint_that_is_what_its_name_says(home: Path) -> None:
    edited = read_checkpoint(home / "runs" / "r" / "ft-m" / "order-0" / f"{COUNT:08d}")
    (name,) = edited.tensors()
    for step in STEPS:
        checkpoint = read_checkpoint(derived(home, step))
        assert checkpoint.record.edit_count == COUNT and checkpoint.record.log[0]["after"] == step
        assert checkpoint.record.method == edited.record.method
    merged = read_checkpoint(derived(home, STEPS[1]))
    assert merged.tensors().keys() == {name}
    assert merged.record.norms[name].update == pytest.approx(edited.record.norms[name].update / 2, rel=1e-5)
    quantized, tuned = (read_checkpoint(derived(home, step)) for step in (STEPS[0], STEPS[2]))
    assert len(quantized.tensors()) == len(tuned.tensors()) == 14, "seven linear layers of each of two layers"
    assert all(len(row.unique()) <= 15 for row in quantized.tensors()[name])
    assert tuned.record.log[0]["steps"] == 3 and tuned.record.log[0]["last_loss"] > 0


def test_rows_say_what_was_done_and_are_in_no_other_table(home: Path) -> None:
    for table in ("checkpoints", "outcomes", "perplexity", "costs"):
        rows = rows_of(home, after_table(table))
        assert {row["after"] for row in rows} == set(STEPS)
        assert {(row["trajectory"], row["method"], row["edit_count"]) for row in rows} == {("ft-m", "ft_m", COUNT)}
    assert {row["edit_count"] for row in rows_of(home, "outcomes")} == {0, 1, COUNT}
    assert {row["trajectory"] for row in rows_of(home, "trajectories")} == {"ft-m"}
    shown = {(row["after"], row["measure"], row["n"]) for row in rows_of(home, "durability")}
    numbers = {"reliability": COUNT, "locality": COUNT, "perplexity": 1}
    assert shown == {(step, measure, n) for step in STEPS for measure, n in numbers.items()}
    listed = {row["table_name"] for row in rows_of(home, "instance_files")}
    assert {after_table("outcomes"), after_table("checkpoints")} <= listed


def test_the_answers_are_those_of_the_changed_model(home: Path) -> None:
    """Merged with a share of 0 it is the pristine model; here the half must lie between the two."""
    rows = {row["after"]: row for row in rows_of(home, "durability") if row["measure"] == "perplexity"}
    base = next(row for row in rows_of(home, "perplexity_by_edit_count") if row["edit_count"] == 0)["value"]
    before, half = rows[STEPS[1]]["before"], rows[STEPS[1]]["value"]
    assert min(base, before) < half < max(base, before)
    assert rows[STEPS[2]]["value"] < before, "training on similar text lowers it"
    assert rows[STEPS[0]]["value"] != before


def test_the_report_verify_and_export_know_the_steps(home: Path, tmp_path: Path) -> None:
    table = durability_markdown(collect(Warehouse(home / "warehouse"), "r"), "teacher_forced")
    assert [line.split(" | ")[2] for line in table.splitlines()[2:]] == ["the edits alone", *sorted(STEPS)]
    page = (home / "reports" / "r.html").read_text()
    assert "Do the edits last?" in page and "merge_base:0.5" in page
    parts = verify(home, "r")
    assert not any(part.damages for part in parts)
    assert {f"r/ft-m/order-0/after/{step.replace(':', '-')}" for step in STEPS} <= {part.name for part in parts}
    export_checkpoint(derived(home, STEPS[0]), tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_a_complete_run_is_left_alone_and_a_stopped_one_continues(
    home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    config = config_in(home, tiny_model).model_copy(update={"home": copy})
    before = digests(copy, "runs", *(f"warehouse/{table}" for table in RESULTS))
    monkeypatch.setattr(evaluator, "_with_weights", None)  # nothing may be measured
    assert run(config).row["num_computed"] == 0
    assert digests(copy, "runs", *(f"warehouse/{table}" for table in RESULTS)) == before
    monkeypatch.undo()
    shutil.rmtree(derived(copy, STEPS[2]))
    shutil.rmtree(copy / "warehouse" / "outcomes_after" / "r" / "ft-m" / "0" / str(COUNT) / "quantize_int4")
    assert run(config).row["num_computed"] == 4, "the answers, and the costs of them, of the swap and of the engine"
    after = digests(copy, "runs", *(f"warehouse/{table}" for table in RESULTS))
    costs = {path for path in before if "costs" in path}
    assert {p: d for p, d in after.items() if p not in costs} == {p: d for p, d in before.items() if p not in costs}


def test_a_step_that_fails_is_an_error_of_its_trajectory(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overedit.tasks.durability import derive

    def change(*arguments: Any) -> Any:
        if arguments[2].kind == "quantize":
            raise torch.OutOfMemoryError("out of memory")
        return real(*arguments)

    real = derive.change
    monkeypatch.setattr(derive, "change", change)
    with pytest.raises(RuntimeError, match=r"FT-M failed: quantize_int4: .*out of memory"):
        run(config_in(tmp_path, tiny_model))
    assert {row["after"] for row in rows_of(tmp_path, "outcomes_after")} == set(STEPS[1:])


def test_pruning_removes_what_can_be_made_again(home: Path, tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    prunings = {pruning.name: pruning for pruning in prune_run(copy, "r")}
    assert prunings["ft-m/order-0/after/quantize_int4"].pruned == (COUNT,)
    assert not (derived(copy, STEPS[0]) / "weights.safetensors").exists()
    assert not any(part.damages for part in verify(copy, "r"))
    config = config_in(home, tiny_model).model_copy(update={"home": copy})
    assert run(config).row["num_computed"] == 0, "it stays complete"


def test_the_last_checkpoint_is_the_one_with_the_most_edits_whatever_a_search_measured_last() -> None:
    assert chosen_counts("last", [1, 10, 100, 32, 56]) == [100]
    assert chosen_counts((1, 32, 50), [1, 100, 32]) == [1, 32]
    assert chosen_counts("last", []) == []
