"""Checkpoints of a small model, and one running engine of each kind for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from overedit.editing.requests import EditRequest
from overedit.tasks.engine.base import Engine
from overedit.tasks.engine.factory import load_in_process
from overedit.tasks.engine.lazy import open_engine
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.pocket_world.world import World, default_world
from overedit.tasks.report.data import RunData, collect
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.browser import headless_chromium
from tests.support.checkpoints import WriteCheckpoint, write_tensors
from tests.support.small_model import write_small_model
from tests.support.synthetic_run import RUN, fill
from tests.support.warm_process import WarmProcess


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that has learnt most of `tests.support.small_model.FACTS`."""
    folder = tmp_path_factory.mktemp("small_model")
    write_small_model(folder)
    return folder


@pytest.fixture(scope="session")
def small_weights(small_model: Path) -> dict[str, torch.Tensor]:
    return load_file(small_model / "model.safetensors")


@pytest.fixture
def checkpoint(tmp_path: Path) -> WriteCheckpoint:
    """Writes tensors as a checkpoint folder."""
    return lambda tensors: write_tensors(tmp_path / f"{len(list(tmp_path.iterdir())):08d}", tensors)


@pytest.fixture(scope="session")
def running_transformers(small_model: Path) -> Iterator[Engine]:
    engine = open_engine(ModelReference(str(small_model)), EngineOptions(kind="transformers"))
    yield engine
    engine.close()


@pytest.fixture
def transformers_engine(running_transformers: Engine) -> Iterator[Engine]:
    """A transformers engine that holds the base."""
    yield running_transformers
    running_transformers.swap(None)


@pytest.fixture(scope="module")  # another engine of the same process that closes takes vLLM's groups along
def running_vllm(small_model: Path) -> Iterator[Engine]:
    """In this process, where tests can look into it; in one of its own it is met in `test_own_process`."""
    pytest.importorskip("vllm")
    engine = load_in_process(ModelReference(str(small_model)), EngineOptions(kind="vllm"))
    yield engine
    engine.close()


@pytest.fixture
def vllm_engine(running_vllm: Engine) -> Iterator[Engine]:
    """A vLLM engine that holds the base."""
    yield running_vllm
    running_vllm.swap(None)


@pytest.fixture(scope="session")
def warm_vllm() -> Iterator[WarmProcess]:
    """Forks processes for engines of vLLM."""
    pytest.importorskip("vllm")
    setup = "overedit.tasks.engine.vllm_environment:starting_vllm"
    with WarmProcess(["tests.support.vllm_imports"], setup=setup, environment={"HF_HUB_OFFLINE": "1"}) as process:
        yield process


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The browser."""
    with headless_chromium(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """A made-up run, to be read alone."""
    return fill(tmp_path_factory.mktemp("synthetic"))


@pytest.fixture(scope="session")
def synthetic_data(synthetic: Warehouse) -> RunData:
    """That run's rows as the report reads them."""
    return collect(synthetic, RUN)


@pytest.fixture(scope="session")
def world() -> World:
    return default_world()


@pytest.fixture(scope="session")
def edits(world: World) -> list[EditRequest]:
    """All edits of facts that the shipped model knows."""
    return list(world.edits(world.num_known_edits))
