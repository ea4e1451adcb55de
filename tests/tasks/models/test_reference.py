"""A model's weights are digested once, and again only when a file has changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from overedit.tasks.models import weights_digest
from overedit.tasks.models.loading import load_model
from overedit.tasks.models.reference import ModelReference


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder of this test's own, and an empty cache."""
    monkeypatch.setenv("OVEREDIT_CACHE", str(tmp_path / "cache"))
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read to be digested."""
    names: list[str] = []
    original = weights_digest.file_sha256
    monkeypatch.setattr(weights_digest, "file_sha256", lambda path: names.append(path.name) or original(path))
    return names


FILES = ["config.json", "model.safetensors"]


def test_the_weights_are_read_once(model: Path, read: list[str]) -> None:
    reference = ModelReference(str(model))
    digest = reference.digest
    assert read == FILES
    assert reference.digest == digest == ModelReference(str(model), dtype="float32").digest
    assert read == FILES
    lines = [f"{name}={hashlib.sha256((model / name).read_bytes()).hexdigest()};" for name in FILES]
    assert digest == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_another_process_does_not_read_them_again(model: Path) -> None:
    script = (
        "import sys; from overedit.tasks.models import weights_digest as module;"
        "from overedit.tasks.models.reference import ModelReference; original = module.file_sha256;"
        "module.file_sha256 = lambda path: print(path.name) or original(path);"
        "print(ModelReference(sys.argv[1]).digest)"
    )
    command = [sys.executable, "-c", script, str(model)]
    digest = ModelReference(str(model)).digest
    answers = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert answers == [digest]
    shutil.rmtree(os.environ["OVEREDIT_CACHE"])
    answers = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert answers == [*FILES, digest], "without the cache they are read"


@pytest.mark.parametrize("what", ["size", "time"])
def test_a_changed_file_is_digested_anew(what: str, model: Path, read: list[str]) -> None:
    digest = ModelReference(str(model)).digest
    weights = model / "model.safetensors"
    content, times = weights.read_bytes(), weights.stat()
    changed = content + b"\0" if what == "size" else content[:-1] + bytes([content[-1] ^ 1])
    weights.write_bytes(changed)
    later = times.st_mtime_ns + (what == "time")
    os.utime(weights, ns=(later, later))
    read.clear()
    assert weights_digest.folder_digest(model) != digest
    assert read == ["model.safetensors"], "the unchanged file is not read"
    weights.write_bytes(content)
    os.utime(weights, ns=(later + 2, later + 2))
    assert ModelReference(str(model)).digest == digest


@pytest.mark.parametrize("content", ["", "[]", '{"folder": 3, "files": {}}', '{"folder": "x", "files": {"a": 1}}'])
def test_a_damaged_record_is_replaced(content: str, model: Path, read: list[str]) -> None:
    digest = ModelReference(str(model)).digest
    (record,) = Path(os.environ["OVEREDIT_CACHE"], "weights").iterdir()
    whole = record.read_text()
    record.write_text(content)
    assert ModelReference(str(model)).digest == digest
    assert read == FILES * 2
    assert record.read_text() == whole


def test_a_cache_that_cannot_be_written_is_no_error(model: Path, read: list[str]) -> None:
    Path(os.environ["OVEREDIT_CACHE"]).write_text("a file in place of the folder")
    reference = ModelReference(str(model))
    assert reference.digest == reference.digest
    assert read == FILES


def test_a_hub_models_digest_is_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Config:
        _commit_hash = "c" * 40

    asked = []
    monkeypatch.setattr(
        "overedit.tasks.models.reference.AutoConfig.from_pretrained",
        lambda name, **options: asked.append((name, options["revision"])) or Config(),
    )
    reference = ModelReference("owner/name", "main")
    assert reference.digest == reference.digest == f"owner/name@{'c' * 40}"
    assert asked == [("owner/name", "main")]


def test_a_model_is_loaded_in_the_references_dtype(tiny_model: Path) -> None:
    assert str(load_model(ModelReference(str(tiny_model), dtype="bfloat16")).model.dtype) == "torch.bfloat16"
