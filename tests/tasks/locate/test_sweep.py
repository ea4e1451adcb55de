"""The sweep: the scores of separate runs, the weights restored, and stored sites left alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from overedit.editing.methods.locft_bf import LocftBf
from overedit.editing.methods.registry import METHODS
from overedit.editing.model.weights import checksum
from overedit.editing.requests import EditRequest, Probe
from overedit.editing.trajectory.interruption import StoppedError
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.editing_job.in_memory import edit_in_memory
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.engine.transformers_engine import TransformersEngine
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.options import EvaluationOptions, MeasureOptions, PerplexityOptions
from overedit.tasks.evaluation.outcomes import PreEdit
from overedit.tasks.evaluation.probing import evaluate_checkpoint
from overedit.tasks.locate import sweep
from overedit.tasks.locate.measures import capability_rows, edit_rows, perplexity_row
from overedit.tasks.locate.sweep import Split, SweepJob, run_sweep
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.runs.run import Run
from tests.support.small_model import FACTS

SITES = ("0.mlp", "1.down_proj", "1.layer")
EVALUATION = EvaluationOptions(protocols=("teacher_forced",), probes=("edit", "locality"))
REQUESTS = [
    EditRequest(
        case_id=f"c{i}",
        prompt=FACTS[i][0],
        target_new="green" if FACTS[i][1] != "green" else "red",
        locality=(Probe(prompt=FACTS[i + 50][0], answer=FACTS[i + 50][1]),),
    )
    for i in range(5)
]


def job(model: Path, **more: Any) -> SweepJob:
    measure = MeasureOptions(
        evaluation=EVALUATION,
        perplexity=PerplexityOptions(),
        capability=CapabilityOptions(),
        engine=EngineOptions(kind="transformers"),
    )
    method = LocftBf(epochs=8, learning_rate=1e-2, batch_size=2)
    settings = {"model": ModelReference(str(model)), "method": method, "sites": SITES, "measure": measure}
    return SweepJob.model_validate(settings | more)


def swept(home: Path, job: SweepJob) -> list[dict[str, Any]]:
    run = Run(name="s", home=home, model="small", dataset="file")
    run_sweep(job, Split("validation", RequestStore(REQUESTS), ()), run, label="LocFT-BF")
    sql = "SELECT * FROM site_scores WHERE measure <> 'seconds' ORDER BY trajectory, order_seed, measure, item"
    return list(run.warehouse.query(sql).to_pylist())


def files(home: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (home / "warehouse" / "site_scores").rglob("*.parquet")}


def test_scores_are_those_of_a_separate_edit_and_sharing_changes_none(small_model: Path, tmp_path: Path) -> None:
    plain = swept(tmp_path / "plain", job(small_model, shared_prefix=False))
    assert swept(tmp_path / "shared", job(small_model)) == plain
    engine = TransformersEngine(ModelReference(str(small_model)), EngineOptions(kind="transformers"))
    before = {name: checksum(tensor) for name, tensor in engine.loaded.model.state_dict().items()}
    answers = PreEdit.of(evaluate_checkpoint(engine, REQUESTS, 0, EVALUATION, edit_counts=(5,)).rows)
    with edit_in_memory(*engine.loaded, REQUESTS, job(small_model).method.at_site("1.down_proj")):
        outcomes = evaluate_checkpoint(engine, REQUESTS, 5, EVALUATION, pre_edit=answers).rows
    wanted = {(row["measure"], row["item"]): row["value"] for row in edit_rows(outcomes)}
    assert {(row["measure"], row["item"]): row["value"] for row in plain if row["site"] == "1.down_proj"} == wanted
    assert {name: checksum(tensor) for name, tensor in engine.loaded.model.state_dict().items()} == before
    engine.close()
    base = [row for row in plain if row["method"] == "none"]
    assert {row["value"] for row in base if row["measure"] == "locality"} == {1.0}
    assert {row["edit_count"] for row in base} == {0} and {row["site"] for row in base} == {None}


def test_a_stopped_sweep_continues_and_a_complete_one_is_left_alone(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = swept(tmp_path / "whole", job(small_model))
    asked = iter([False, True])

    class Stop:
        def __enter__(self) -> Any:
            return lambda: next(asked)

        def __exit__(self, *_: object) -> None:
            return None

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "stop_on_signals", Stop)
        with pytest.raises(StoppedError, match="stopped after 2 sites"):
            swept(tmp_path / "parts", job(small_model))
    first = files(tmp_path / "parts")
    assert len(first) == 2
    assert swept(tmp_path / "parts", job(small_model)) == whole
    every = files(tmp_path / "parts")
    assert len(every) == 4 and first.items() <= every.items()
    monkeypatch.setattr(sweep, "TransformersEngine", None)  # nothing is loaded
    assert swept(tmp_path / "parts", job(small_model)) == whole
    assert files(tmp_path / "parts") == every


def test_a_key_depends_on_what_changes_the_scores_alone(small_model: Path, tmp_path: Path) -> None:
    run = Run(name="s", home=tmp_path, model="small", dataset="file")
    split = Split("validation", RequestStore(REQUESTS), ())

    def keys(split: Split = split, **more: Any) -> dict[tuple[str | None, int], str]:
        found = sweep.places(job(small_model, **more), split, run)
        return {(place.site, place.point.order_seed): place.key for place in found}

    before = keys()
    assert len(set(before.values())) == 4
    assert keys(sites=SITES[1:]).items() <= before.items()
    assert before.items() <= keys(seeds=(0, 1)).items()
    fewer = Split("validation", RequestStore(REQUESTS[:4]), ())
    assert not set(keys(fewer).values()) & set(before.values())
    other = keys(method=LocftBf(epochs=9))
    assert other[None, 0] == before[None, 0], "the pristine model is the same under every method"
    assert other["0.mlp", 0] != before["0.mlp", 0]


def test_what_cannot_be_edited_is_a_result_with_a_reason(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = swept(tmp_path / "wild", job(small_model, method=LocftBf(epochs=30, learning_rate=1e30), sites=("1.mlp",)))
    assert [(row["measure"], row["value"], row["reason"]) for row in rows if row["site"]] == [
        ("failure", None, "the weights are not finite")
    ]

    def singular(*_: Any, **__: Any) -> None:
        raise torch.linalg.LinAlgError("the matrix is\nsingular")  # type: ignore[attr-defined]

    monkeypatch.setattr(sweep, "edit_in_memory", singular)
    rows = swept(tmp_path / "singular", job(small_model, sites=("1.mlp",)))
    assert [row["reason"] for row in rows if row["site"]] == ["the matrix is singular"]


def test_any_method_can_be_moved_and_measured(small_model: Path, tmp_path: Path) -> None:
    method = METHODS["ultraedit"].config(sites=("0.up_proj",), learning_rate=1e-3)
    rows = swept(tmp_path, job(small_model, method=method, sites=("1.up_proj",), turn_size=2))
    assert {row["measure"] for row in rows if row["site"]} == {"reliability", "locality"}


def test_rows_of_measures() -> None:
    outcomes = [
        {"probe": "rephrase", "protocol": "generated", "case_id": "a", "score": score, "agreement": 1.0}
        for score in (1.0, 0.0, None)
    ] + [{"probe": "text", "protocol": "generated", "case_id": "a", "score": None, "agreement": None}]
    row = {"measure": "generalization", "protocol": "generated", "item": "a", "value": 0.5, "n": 2}
    assert edit_rows(outcomes) == [row]
    score = {"task": "t", "value": 0.5, "num_samples": 10, "stderr": math.nan, "chance": 0.25}
    kept = score | {"main": True, "part_of": None}
    (found,) = capability_rows([kept, kept | {"main": False}, kept | {"part_of": "g"}])
    assert (found["item"], found["value"], found["stderr"], found["chance"]) == ("t", 0.5, None, 0.25)
    texts = [{"corpus": "c", "nll": 3.0, "num_tokens": 2}, {"corpus": "c", "nll": 1.0, "num_tokens": 2}]
    assert perplexity_row(texts)["value"] == pytest.approx(math.e)
    assert perplexity_row([texts[0] | {"nll": math.nan}])["value"] == math.inf
