"""The scan: each edit alone, measured, and undone to the last bit; what was stored is not scanned again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from overedit.editing.methods.ft_m import FtM
from overedit.editing.methods.registry import METHODS
from overedit.editing.model.memory import OomHalver
from overedit.editing.model.weights import Delta, Replacement, WeightUpdate, applied, checksum
from overedit.editing.requests import EditRequest, Probe
from overedit.editing.trajectory.interruption import StoppedError
from overedit.editing.trajectory.settings import turn_seed
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DatasetOptions
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.engine.transformers_batches import LocalModel
from overedit.tasks.models.loading import LoadedModel, load_model
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.runs.run import Run, TrajectoryPoint
from overedit.tasks.runs.verify import verify
from overedit.tasks.scan import scan as scanning
from overedit.tasks.scan.hard_cases import save_hard_cases, scan_line
from overedit.tasks.scan.scan import PerplexityProbe, ScanJob, editing_alone, perplexity, run_scan, scan
from tests.support.quick_methods import config_of, covariance_of
from tests.support.small_model import FACTS
from tests.support.teachable_models import byte_tokenizer, some_requests
from tests.support.tiny_models import tiny

TEXTS = ["The sun is over Land1 .", "A river runs to the sea and the sun .", "The", "Land2 is far ."]
REQUESTS = [
    EditRequest(
        case_id=f"c{i}",
        prompt=f"The capital of Land{i} is" if i % 2 else f"Land{i} has the capital",
        subject=f"Land{i}",
        target_new=f"Port {i}",
        rephrase_prompts=("the capital",),
        persona_prompts=("so what is it",),
        text_prompts=("Once",),
        locality=(Probe(prompt="The river is", answer="Orm"), Probe(prompt="x")),
        portability=(Probe(prompt="y", answer="z"),),
    )
    for i in range(7)
]
WEIGHT = "model.layers.1.mlp.down_proj.weight"
METHOD = FtM(site="1.down_proj", max_steps=2)


@pytest.fixture
def loaded(tiny_model: Path) -> LoadedModel:
    return load_model(ModelReference(str(tiny_model)))


def place(home: Path) -> TrajectoryPoint:
    run = Run(name="s", home=home, model="tiny", dataset="file")
    return TrajectoryPoint(run=run, trajectory="ft-m", method="ft_m", order_seed=0, edit_count=1)


def test_perplexity_is_the_exponential_of_the_mean_or_infinite() -> None:
    assert perplexity([1.0, 2.0]) == pytest.approx(math.exp(1.5))
    assert perplexity([math.nan, 1.0]) == perplexity([math.inf]) == perplexity([800.0]) == math.inf


def test_rows_are_what_the_edited_model_says_and_the_weights_are_put_back(loaded: LoadedModel) -> None:
    model, tokenizer = loaded
    bits = {name: checksum(tensor) for name, tensor in model.state_dict().items()}
    edit = editing_alone(loaded, METHOD, seed=0, inputs={})
    rows = list(scan(loaded, REQUESTS[:3], PerplexityProbe.of(loaded, TEXTS), edit, first=5))
    assert {name: checksum(tensor) for name, tensor in model.state_dict().items()} == bits

    def of_texts() -> list[list[float]]:
        ids = [tokenizer(text, return_tensors="pt")["input_ids"] for text in TEXTS]
        with torch.no_grad():
            losses = [cross_entropy(model(i).logits[0, :-1], i[0, 1:], reduction="none") for i in ids if i.shape[1] > 1]
        return [loss.tolist() for loss in losses]

    base = [perplexity(nlls) for nlls in of_texts()]
    for row, request in zip(rows, REQUESTS, strict=False):
        update = edit(request)
        with applied(model, update):
            nlls = of_texts()
        assert row["case_id"] == request.case_id
        assert row["perplexity"] == pytest.approx(sum(map(perplexity, nlls)) / len(nlls), rel=1e-4)
        assert row["token_perplexity"] == pytest.approx(perplexity([nll for text in nlls for nll in text]), rel=1e-4)
        assert row["base_perplexity"] == pytest.approx(sum(base) / len(base), rel=1e-4)
        assert row["ratio"] == row["perplexity"] / row["base_perplexity"] != 1
        (change,) = update.values()
        before = model.get_parameter(WEIGHT).detach()
        assert isinstance(change, Replacement)
        assert row["update_norm"] == pytest.approx(float((change.tensor - before).norm()), rel=1e-4)
    assert [row["position"] for row in rows] == [5, 6, 7]


def test_learned_is_every_token_of_the_answer(small_model: Path) -> None:
    gauge = PerplexityProbe.of(load_model(ModelReference(str(small_model))), TEXTS)
    asked = [EditRequest(case_id="1", prompt=prompt, target_new=answer) for prompt, answer in FACTS[:20]]
    assert sum(bool(gauge.read(request).learned) for request in asked) > 15
    first = asked[0].target_new
    assert gauge.read(asked[0].model_copy(update={"target_new": f"{first} {first}"})).learned is False
    assert gauge.read().learned is None


@pytest.mark.parametrize("name", METHODS)
def test_every_edit_is_the_first_of_a_trajectory(name: str) -> None:
    """Whatever was scanned before: no moments, keys or optimizer of another request go into it."""
    loaded = LoadedModel(tiny("llama"), byte_tokenizer())
    inputs = covariance_of(name, loaded.model)
    edit = editing_alone(loaded, config_of(name), seed=9, inputs=inputs)
    first, second = some_requests(2)
    edit(first)
    alone = METHODS[name].function(*loaded, [second], config_of(name), {}, seed=turn_seed(9, 0, 1), **inputs).update
    after = edit(second)
    assert alone.keys() == after.keys()
    assert all(torch.equal(a, b) for key in alone for a, b in zip(alone[key], after[key], strict=True))


def breaking(loaded: LoadedModel) -> Any:
    """An edit that changes next to nothing, but blows two cases up and cannot make a third."""

    def edit(request: EditRequest) -> WeightUpdate:
        weight = loaded.model.get_parameter(WEIGHT).detach()
        if request.case_id == "c2":
            return {WEIGHT: Replacement(torch.full_like(weight, math.nan))}
        if request.case_id == "c4":
            raise torch.linalg.LinAlgError("the matrix is\nsingular")  # type: ignore[attr-defined]
        if request.case_id == "c3":  # logits many times as large: the model is sure, and wrong
            return {"model.norm.weight": Delta(loaded.model.get_parameter("model.norm.weight").detach() * 300)}
        return {WEIGHT: Delta(weight * 1e-3)}

    return edit


def test_edits_that_break_the_model_become_a_dataset(loaded: LoadedModel, tmp_path: Path) -> None:
    here = place(tmp_path)
    rows = list(scan(loaded, REQUESTS, PerplexityProbe.of(loaded, TEXTS), breaking(loaded)))
    assert rows[4]["error"] == "the matrix is singular"
    assert "perplexity" not in rows[4]
    assert rows[2]["perplexity"] == rows[2]["ratio"] == rows[2]["update_norm"] == math.inf
    assert not rows[2]["learned"]
    here.store("scans", [row | {"label": "Breaker"} for row in rows], key="k")
    path = save_hard_cases(here, RequestStore(REQUESTS))
    assert path == tmp_path / "datasets" / "s-ft-m-hard.jsonl"
    again = load_requests(DatasetOptions(name="file", path=path, order_seed=None)).requests
    assert tuple(again) == (REQUESTS[2], REQUESTS[3])
    hard = here.run.warehouse.query("SELECT case_id, reason, ratio, subject_first FROM hard_cases").to_pylist()
    assert [(row["case_id"], row["reason"], row["subject_first"]) for row in hard] == [
        ("c2", "not finite", True),
        ("c3", "ratio", False),
    ]
    assert hard[1]["ratio"] > 10
    line = scan_line(here, path)
    assert line.startswith("Breaker: 2 of 6 edits break the model, each on its own (33.3%; ")
    assert "1 edits could not be made" in line
    here.store("scans", [row | {"label": "Breaker"} for row in rows[:2]], key="k")
    assert save_hard_cases(here, RequestStore(REQUESTS)) is None
    assert not path.exists()


def test_a_model_whose_own_perplexity_is_not_finite_is_refused(loaded: LoadedModel) -> None:
    broken = {WEIGHT: Replacement(torch.full_like(loaded.model.get_parameter(WEIGHT), math.nan))}
    with applied(loaded.model, broken), pytest.raises(ValueError, match="pristine model's own perplexity"):
        next(scan(loaded, REQUESTS, PerplexityProbe.of(loaded, TEXTS), breaking(loaded)))


def test_texts_of_one_token_have_no_perplexity() -> None:
    loaded = LoadedModel(tiny("llama"), byte_tokenizer())
    with pytest.raises(ValueError, match="no text has two tokens"):
        PerplexityProbe.of(loaded, ["a", "b"])


def test_long_texts_are_read_in_windows() -> None:
    loaded = LoadedModel(tiny("llama"), byte_tokenizer())
    gauge = PerplexityProbe.of(loaded, ["x" * 200])
    assert [len(piece) for piece in gauge.pieces[0]] == [63, 63, 63, 14]
    wide = LocalModel(*loaded, 64, [], 10**6, OomHalver())
    assert gauge.read().perplexity == pytest.approx(gauge._replace(local=wide).read().token_perplexity, rel=1e-5)


def stored(home: Path) -> list[dict[str, Any]]:
    rows = place(home).run.warehouse.query("SELECT * FROM scans ORDER BY position").to_pylist()
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def job(tiny_model: Path) -> ScanJob:
    return ScanJob(model=ModelReference(str(tiny_model)), method=METHOD)


def files(home: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (home / "warehouse" / "scans").rglob("*.parquet")}


def test_what_is_stored_is_not_scanned_again(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "PART", 3)
    requests = RequestStore(REQUESTS)
    run_scan(job(tiny_model), requests, TEXTS, place(tmp_path), label="FT-M")
    rows, before = stored(tmp_path), files(tmp_path)
    assert [row["position"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert {(row["run"], row["trajectory"], row["edit_count"], row["label"]) for row in rows} == {
        ("s", "ft-m", 1, "FT-M")
    }
    assert len(before) == 3
    assert not [damage for part in verify(tmp_path, None) for damage in part.damages]
    with monkeypatch.context() as patch:
        patch.setattr(scanning, "load_model", lambda *_, **__: pytest.fail("nothing is missing"))
        run_scan(job(tiny_model), requests, TEXTS, place(tmp_path), label="FT-M")
    assert files(tmp_path) == before
    lost = next((tmp_path / "warehouse" / "scans").rglob("*.parquet"))
    lost.unlink()
    run_scan(job(tiny_model), requests, TEXTS, place(tmp_path), label="FT-M")
    assert stored(tmp_path) == rows
    assert {name: time for name, time in files(tmp_path).items() if name != lost.name} == {
        name: time for name, time in before.items() if name != lost.name
    }
    run_scan(job(tiny_model), requests, TEXTS[:2], place(tmp_path), label="FT-M")  # other texts: all anew
    assert stored(tmp_path) != rows
    assert len(files(tmp_path)) == 3


def test_a_stopped_scan_ends_with_the_same_rows(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "PART", 3)
    requests = RequestStore(REQUESTS)
    looks = 0

    @contextmanager
    def stop_at_the_fifth_edit() -> Iterator[Any]:
        def asked() -> bool:
            nonlocal looks
            looks += 1
            return looks >= 5

        yield asked

    with monkeypatch.context() as patch:
        patch.setattr(scanning, "stop_on_signals", stop_at_the_fifth_edit)
        with pytest.raises(StoppedError, match="stopped after 3 edits"):
            run_scan(job(tiny_model), requests, TEXTS, place(tmp_path / "stopped"), label="FT-M")
    assert len(stored(tmp_path / "stopped")) == 3
    for home in (tmp_path / "stopped", tmp_path / "whole"):
        run_scan(job(tiny_model), requests, TEXTS, place(home), label="FT-M")
    assert stored(tmp_path / "stopped") == stored(tmp_path / "whole")
