"""How many GPUs an engine may be told to use, before anything is started."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

import overedit.tasks.engine.options as options
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.plan import make_plan
from overedit.tasks.engine.client import _environment
from overedit.tasks.engine.options import EngineOptions, check_devices, engine_kind
from overedit.tasks.system.gpu_locks import gpu_lock
from overedit.tasks.system.locks import holder

EIGHT_HEADS = SimpleNamespace(num_attention_heads=8)


def test_an_engine_may_have_as_many_workers_as_there_are_gpus() -> None:
    four = EngineOptions(tensor_parallel=2, pipeline_parallel=2)
    assert four.workers == 4
    check_devices(four, 4, EIGHT_HEADS)
    with pytest.raises(
        ValueError, match=r"tensor_parallel: 2 x .*pipeline_parallel: 2 needs 4 GPUs, and 3 are visible"
    ):
        check_devices(four, 3, EIGHT_HEADS)
    check_devices(EngineOptions(tensor_parallel=8), 0, EIGHT_HEADS)  # without GPUs: processes
    check_devices(EngineOptions(tensor_parallel=3), 0, SimpleNamespace())


def test_a_pipeline_without_gpus_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"engine.pipeline_parallel: 2 needs GPUs.*first answer of a pipeline; use 1"):
        check_devices(EngineOptions(pipeline_parallel=2), 0, EIGHT_HEADS)


def test_heads_that_cannot_be_shared_are_refused_with_the_sizes_that_can() -> None:
    with pytest.raises(
        ValueError, match=r"tensor_parallel: 3 does not divide .* 8 attention heads; accepted: 1, 2, 4, 8"
    ):
        check_devices(EngineOptions(tensor_parallel=3), 4, EIGHT_HEADS)


def test_only_vllm_has_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("tensor_parallel", "pipeline_parallel"):
        with pytest.raises(ValueError, match=f"engine.{key}: 2 needs vLLM; the transformers engine accepts 1"):
            EngineOptions.model_validate({"kind": "transformers", key: 2})
        with pytest.raises(ValueError, match="greater than or equal to 1"):
            EngineOptions.model_validate({key: 0})
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"engine.tensor_parallel: 2 needs vLLM"):
        engine_kind(EngineOptions(tensor_parallel=2))


def test_a_run_is_refused_before_it_starts(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: object())
    config = BenchmarkConfig.model_validate(
        {
            "name": "r",
            "home": str(tmp_path),
            "model": str(tiny_model),
            "dataset": {"name": "file", "path": str(tmp_path / "absent.json")},
            "methods": [{"method": "ft_m", "site": "1.down_proj"}],
            "edit_counts": [1],
            "engine": {"tensor_parallel": 3},
        }
    )
    with pytest.raises(ValueError, match="does not divide the model's 2 attention heads; accepted: 1, 2"):
        make_plan(config)


def test_an_engine_holds_all_of_its_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    monkeypatch.setattr("overedit.tasks.system.gpu_locks.visible_gpus", lambda: ("GPU-a", "GPU-b", "GPU-c"))
    monkeypatch.setattr("overedit.tasks.system.gpu_locks.gpu_locks_folder", lambda: tmp_path)
    monkeypatch.setattr("torch.cuda.set_device", used.append)
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: None)
    with gpu_lock(first=2):
        held = [holder(tmp_path / name) for name in ("GPU-a", "GPU-b")]
        assert all(f"process {os.getpid()} on" in one for one in held)
        assert not (tmp_path / "GPU-c").exists()
    assert used == [0]


def test_workers_share_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 6)
    assert [_environment(workers)["OMP_NUM_THREADS"] for workers in (1, 2, 8)] == ["6", "3", "1"]
