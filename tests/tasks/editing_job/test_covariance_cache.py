"""The cache of covariances, given files, corpora, and what an editing job hands to its method."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from overedit.editing.methods.base import CovarianceOptions, EditResult
from overedit.editing.methods.crispedit import CrispEdit
from overedit.editing.methods.ft_l import FtL
from overedit.editing.methods.locate_then_edit.covariance import SecondMoment
from overedit.editing.methods.locate_then_edit.curvature import factor_names
from overedit.editing.methods.registry import METHODS
from overedit.editing.model.weights import Delta
from overedit.editing.requests import EditRequest
from overedit.flows.plan import check_methods
from overedit.tasks.data.corpus import open_corpus, texts_digest
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.editing_job import covariance_cache as stage
from overedit.tasks.editing_job.covariance_cache import check_covariance, covariance_of
from overedit.tasks.editing_job.covariance_files import read_record
from overedit.tasks.editing_job.job import EditingJob, run_editing_job
from overedit.tasks.models.loading import LoadedModel, load_model
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.pocket_world.corpus import training_texts
from overedit.tasks.system.cache import cache_folder
from overedit.tasks.system.progress import unseen

SITES = ("0.down_proj", "1.down_proj")


class Passes:
    """Stands in for `second_moments` and keeps what each call was asked for."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.sites: list[tuple[str, ...]] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.sites.append(tuple(args[3]))
        return self.real(*args, **kwargs)


@pytest.fixture
def passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Passes:
    """An empty cache, and the passes over the text that follow."""
    monkeypatch.setenv("OVEREDIT_CACHE", str(tmp_path / "cache"))
    counter = Passes(stage.second_moments)
    monkeypatch.setattr(stage, "second_moments", counter)
    return counter


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"Line {i} of a text with {i * i} words.\n" for i in range(12)))
    return path


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> LoadedModel:
    return load_model(ModelReference(str(tiny_model)))


def moments(
    loaded: LoadedModel, options: CovarianceOptions, sites: tuple[str, ...] = SITES, **more: Any
) -> dict[str, SecondMoment]:
    return covariance_of(*loaded, options, sites, **({"model_digest": "w"} | more))


def same(first: Mapping[str, SecondMoment], second: Mapping[str, SecondMoment]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[site].matrix_II, moment.matrix_II)
        and replace(moment, matrix_II=first[site].matrix_II) == first[site]
        for site, moment in second.items()
    )


def cached(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.*"))


def test_a_second_run_reads_and_only_what_is_missing_is_computed(
    loaded: LoadedModel, passes: Passes, corpus: Path, tmp_path: Path
) -> None:
    options = CovarianceOptions(corpus=str(corpus))
    first = moments(loaded, options, SITES[:1])
    assert passes.sites == [SITES[:1]]
    whole = moments(loaded, options, (*SITES, "1.up_proj"))
    assert passes.sites[1:] == [("1.down_proj", "1.up_proj")], "what is missing, in one pass"
    assert same(moments(loaded, options, (*SITES, "1.up_proj")), whole)
    assert same({SITES[0]: whole[SITES[0]]}, first)
    assert len(passes.sites) == 2
    assert {path.suffix for path in cached(tmp_path)} == {".safetensors"}
    record = read_record(cached(tmp_path)[0])
    assert (record.site, record.model_digest, record.max_length) == ("0.down_proj", "w", 512)
    assert record.corpus_digest == texts_digest(corpus.read_text().splitlines())


def test_factors_of_the_curvature_are_cached_under_names_of_their_own(
    loaded: LoadedModel, passes: Passes, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Passes(stage.curvature_of_texts)
    monkeypatch.setattr(stage, "curvature_of_texts", counter)
    options = CovarianceOptions(corpus=str(corpus))
    keys = moments(loaded, options)
    names, others = factor_names(SITES[0]), factor_names(SITES[1])
    first = moments(loaded, options, names)
    assert tuple(first) == names
    whole = moments(loaded, options, (*names, *others))
    assert (passes.sites, counter.sites) == ([SITES], [names, others]), "what is missing, in one pass"
    assert same({name: whole[name] for name in names}, first)
    assert not torch.equal(whole[names[0]].matrix_II, keys[SITES[0]].matrix_II)
    given = CovarianceOptions(corpus="unread", path=tmp_path / "cache" / "covariance")
    assert same(moments(loaded, given, names), first)
    assert same(moments(loaded, given), keys)


def test_an_editing_job_gives_crispedit_both_factors(
    tiny_model: Path, passes: Passes, corpus: Path, tmp_path: Path
) -> None:
    """A run that continues from its first checkpoint ends with the same bits, state included."""
    model = ModelReference(str(tiny_model))
    options = CovarianceOptions(corpus=str(corpus))
    method = CrispEdit(sites=SITES, energy=0.5, epochs=1, covariance=options)
    job = EditingJob(model=model, method=method, edit_counts=(1, 2), turn_size=1)
    requests = RequestStore(EditRequest(case_id=str(i), prompt=f"p{i}", target_new="t") for i in range(2))
    first = run_editing_job(job, requests, tmp_path / "run")
    assert set(first[1].state()) >= {*method.covariances, "edit_tokens", "steps", "0.down_proj.first_moment"}
    files = [path.read_bytes() for path in sorted((tmp_path / "run" / "00000002").glob("*.safetensors"))]
    shutil.rmtree(tmp_path / "run" / "00000002")
    run_editing_job(job, requests, tmp_path / "run")
    assert [path.read_bytes() for path in sorted((tmp_path / "run" / "00000002").glob("*.safetensors"))] == files
    key = job.key(requests)
    corpus.write_text(corpus.read_text() + "One more.\n")
    assert job.key(requests) != key
    check_methods(model, (method,))
    with pytest.raises(ValueError, match="holds no text"):
        corpus.write_text("\n")
        check_methods(model, (method,))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_computed_is_what_will_be_read(
    dtype: Any, loaded: LoadedModel, passes: Passes, corpus: Path, tmp_path: Path
) -> None:
    options = CovarianceOptions(corpus=str(corpus), dtype=dtype)
    assert same(moments(loaded, options), moments(loaded, options))
    assert len(passes.sites) == 1
    stored = {str(tensor.dtype) for path in cached(tmp_path) for tensor in load_file(path).values()}
    assert stored == {f"torch.{dtype}"}


@pytest.mark.parametrize(
    "changed", [{"num_samples": 5}, {"max_length": 4}, {"dtype": "float64"}, {"model_digest": "v"}, {"site": True}]
)
def test_whatever_changes_the_numbers_makes_them_anew(
    changed: dict[str, Any], loaded: LoadedModel, passes: Passes, corpus: Path
) -> None:
    options = CovarianceOptions(corpus=str(corpus))
    moments(loaded, options)
    weights = {"model_digest": changed.pop("model_digest")} if "model_digest" in changed else {}
    sites = ("0.up_proj", "1.up_proj") if changed.pop("site", False) else SITES
    moments(loaded, options.model_copy(update=changed), sites, **weights)
    assert len(passes.sites) == 2


def test_the_models_dtype_counts(loaded: LoadedModel, passes: Passes, corpus: Path, tiny_model: Path) -> None:
    options = CovarianceOptions(corpus=str(corpus))
    moments(loaded, options)
    moments(load_model(ModelReference(str(tiny_model), dtype="bfloat16")), options)
    assert len(passes.sites) == 2


def test_the_texts_count_and_not_their_files_name(loaded: LoadedModel, passes: Passes, corpus: Path) -> None:
    moments(loaded, CovarianceOptions(corpus=str(corpus)))
    other = corpus.with_name("other.txt")
    shutil.copy(corpus, other)
    moments(loaded, CovarianceOptions(corpus=str(other)))
    assert len(passes.sites) == 1
    other.write_text(corpus.read_text() + "One more.\n")
    moments(loaded, CovarianceOptions(corpus=str(other)))
    assert len(passes.sites) == 2


@pytest.mark.parametrize("harm", ["cut", "changed", "empty", "another"])
def test_a_damaged_file_is_computed_anew_with_a_warning(
    harm: str, loaded: LoadedModel, passes: Passes, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = CovarianceOptions(corpus=str(corpus))
    before = moments(loaded, options)
    first, second = cached(tmp_path)
    content = bytearray(first.read_bytes())
    content[-1] ^= 0xFF
    harmed = {"cut": content[:-9], "changed": content, "empty": b"", "another": second.read_bytes()}[harm]
    first.write_bytes(bytes(harmed))
    assert same(moments(loaded, options), before)
    assert passes.sites[1:] == [("0.down_proj",)]
    assert "computing a covariance anew" in caplog.text
    assert first.name in caplog.text
    moments(loaded, options)
    assert len(passes.sites) == 2


def test_a_file_appears_whole_or_not_at_all(
    loaded: LoadedModel, passes: Passes, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError("no space left")

    options = CovarianceOptions(corpus=str(corpus))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        without = moments(loaded, options)  # goes on without the cache
    assert cached(tmp_path) == []
    assert same(moments(loaded, options), without)
    assert len(passes.sites) == 2


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVEREDIT_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert cache_folder("covariance") == Path("/one/covariance")
    monkeypatch.delenv("OVEREDIT_CACHE")
    assert cache_folder("covariance") == Path("/two/overedit/covariance")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("covariance") == Path.home() / ".cache" / "overedit" / "covariance"


def test_given_files_must_be_of_this_model(loaded: LoadedModel, passes: Passes, corpus: Path, tmp_path: Path) -> None:
    computed = moments(loaded, CovarianceOptions(corpus=str(corpus)))
    folder, file = tmp_path / "cache" / "covariance", cached(tmp_path)[0]
    given = CovarianceOptions(corpus="no such thing.txt", path=folder)
    assert same(moments(loaded, given), computed)
    assert same(moments(loaded, given.model_copy(update={"path": file}), SITES[:1]), {SITES[0]: computed[SITES[0]]})
    assert len(passes.sites) == 1
    check_covariance(given, SITES, model_digest="w")
    for options, digest, message in (
        (given, "v", rf"(?s)site 0.down_proj in .*{file.name} is of another model.* w, .* v"),
        (
            given.model_copy(update={"path": file}),
            "w",
            r"methods.covariance.path: .* no covariance of site 1.down_proj",
        ),
        (given.model_copy(update={"path": tmp_path / "none"}), "w", r"methods.covariance.path: there is no file"),
        (given.model_copy(update={"path": corpus}), "w", r"methods.covariance.path: .* not a whole covariance file"),
    ):
        with pytest.raises(ValueError, match=message):
            check_covariance(options, SITES, model_digest=digest)
        with pytest.raises(ValueError, match=message):
            moments(loaded, options, model_digest=digest)
    moments(loaded, CovarianceOptions(corpus=str(corpus), max_length=7), SITES[:1])
    with pytest.raises(ValueError, match=r"more than one covariance of site 0.down_proj"):
        check_covariance(given, SITES, model_digest="w")


def test_a_foreign_safetensors_file_is_no_covariance(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="not a whole covariance file"):
        check_covariance(CovarianceOptions(corpus="pocket", path=tmp_path), SITES, model_digest="w")


def test_corpora(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = corpus.read_text().splitlines()
    assert open_corpus(str(corpus), 3, key="k").texts == lines[:3]
    assert open_corpus(str(corpus), None, key="k") == (lines, texts_digest(lines))
    assert texts_digest(["ab", "c"]) != texts_digest(["a", "bc"])
    assert open_corpus("pocket", 5, key="k").texts == training_texts(5) == training_texts()[:5]
    assert all(text.endswith(".") for text in training_texts(50))

    class Builder:
        hash = "c" * 40

        def as_streaming_dataset(self, split: str) -> list[dict[str, str]]:
            assert split == "train"
            return [{"text": "one"}, {"text": " "}, {"text": " two"}, {"text": "three"}]

    asked = []
    monkeypatch.setattr("datasets.load_dataset_builder", lambda *args, **kw: asked.append((args, kw)) or Builder())
    hub = open_corpus("owner/name:en", 2, key="k")
    assert list(hub.texts) == list(hub.texts) == ["one", "two"]
    assert asked == [(("owner/name", "en"), {"revision": None})] + [(("owner/name", "en"), {"revision": "c" * 40})] * 2
    assert hub.digest == open_corpus(f"owner/name:en@{'c' * 40}", 2, key="k").digest
    assert hub.digest != open_corpus("owner/name:en", 3, key="k").digest


def test_an_unreachable_hub_dataset_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nto it")

    monkeypatch.setattr("datasets.load_dataset_builder", unreachable)
    message = r"methods.covariance.corpus: owner/name is no file here and no dataset .*\(no route\)"
    with pytest.raises(ValueError, match=message):
        check_covariance(CovarianceOptions(corpus="owner/name"), SITES, model_digest="w")


def knowing(told: list[Any], options: CovarianceOptions, monkeypatch: pytest.MonkeyPatch) -> MappingProxyType[str, Any]:
    """The registry with an FT-L that asks for a covariance, and notes what it is told."""

    def function(model: Any, tokenizer: Any, requests: Any, config: Any, state: Any, **inputs: Any) -> EditResult:
        told.append(inputs["covariance"])
        name = "model.layers.0.mlp.down_proj.weight"
        return EditResult({name: Delta(torch.full_like(model.get_parameter(name), 0.01))}, {}, {})

    monkeypatch.setattr(FtL, "covariance_options", options)
    monkeypatch.setattr(FtL, "sites", SITES)
    method = METHODS["ft_l"]._replace(function=function)
    return MappingProxyType({**METHODS, "ft_l": method})


def test_an_editing_job_tells_its_method_of_the_pristine_model(
    tiny_model: Path, passes: Passes, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    options = CovarianceOptions(corpus=str(corpus))
    monkeypatch.setattr("overedit.tasks.editing_job.job.METHODS", knowing(told, options, monkeypatch))
    model = ModelReference(str(tiny_model))
    job = EditingJob(model=model, method=FtL(site="0.down_proj"), edit_counts=(1, 2), turn_size=1)
    requests = RequestStore(EditRequest(case_id=str(i), prompt=f"p{i}", target_new="t") for i in range(2))
    shown: list[str] = []

    def show(title: str, unit: str) -> Any:
        shown.append(f"{title} [{unit}]")
        return unseen(title, unit)

    run_editing_job(job, requests, tmp_path / "run", show=show)
    assert [title.split(" ")[0] for title in shown] == ["Reading", "Editing"]
    assert told[0] is told[1], "one for all turns"
    pristine = moments(load_model(model), options, model_digest=model.digest)
    assert same(told[0], pristine)
    assert passes.sites == [SITES]

    shutil.rmtree(tmp_path / "run" / "00000002")
    run_editing_job(job, requests, tmp_path / "run")
    assert same(told[2], pristine), "not of the model that the first checkpoint left"
    assert len(passes.sites) == 1
    run_editing_job(job, requests, tmp_path / "run")
    assert len(told) == 3, "what is complete is not edited again"
    key = job.key(requests)
    corpus.write_text(corpus.read_text() + "One more.\n")
    assert job.key(requests) != key
    run_editing_job(job, requests, tmp_path / "run")
    assert len(told) == 5
    assert len(passes.sites) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.txt", None, r"methods.covariance.corpus: there is no file .*gone.txt"),
        ("gone.jsonl", None, r"methods.covariance.corpus: .*gone.jsonl does not exist"),
        ("empty.txt", "\n\n", r"methods.covariance.corpus: .*empty.txt holds no text"),
        ("rows.json", '[{"body": "x"}]', r"methods.covariance.corpus: row 1 of .*rows.json has no text"),
    ],
)
def test_a_bad_corpus_is_found_before_anything_starts(
    name: str, content: str | None, message: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    options = CovarianceOptions(corpus=str(tmp_path / name))
    monkeypatch.setattr(FtL, "covariance_options", options)
    monkeypatch.setattr(FtL, "sites", SITES)
    with pytest.raises(ValueError, match=message):
        check_methods(ModelReference(str(tiny_model)), (FtL(site="0.down_proj"),))
