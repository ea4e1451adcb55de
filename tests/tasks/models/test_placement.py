"""Editing a model larger than the memory it may take: the same bits, and a bounded peak."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.plan import make_plan
from overedit.tasks.models.placement import Placement, load_placed
from overedit.tasks.models.reference import ModelReference
from tests.support.memory_limit import run_limited
from tests.support.random_shards import write_random_model
from tests.support.tiny_models import llama_config

EDIT = """
import json, sys, torch
from pathlib import Path
from overedit.editing.methods.locft_bf import LocftBf
from overedit.editing.methods.ultraedit import UltraEdit
from overedit.editing.model.memory import peak_bytes, reset_peak
from overedit.editing.model.weights import checksum
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.editing_job.job import EditingJob, run_editing_job
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.plan import make_plan
from overedit.tasks.models.placement import Placement
from overedit.tasks.models.reference import ModelReference
from tests.support.teachable_models import some_requests

small, model, out, offload = sys.argv[1:]
found = {}


def edit(model, folder, methods):
    for method in methods:
        options = {"edit_counts": (6,), "turn_size": 6, "placement": Placement(offload=offload)}
        job = EditingJob(model=ModelReference(model), method=method, **options)
        (checkpoint,) = run_editing_job(job, RequestStore(some_requests(6)), folder / method.method)
        found.update((f"{method.method} {name}", checksum(t)) for name, t in checkpoint.tensors().items())


def methods(layer):
    return [
        LocftBf(site=f"{layer}.down_proj", epochs=2, batch_size=3),
        UltraEdit(sites=(f"{layer - 1}.down_proj", f"{layer}.up_proj"), learning_rate=1e-3),
    ]


edit(small, Path(out) / "small", methods(1))  # what is imported for the first edit does not count
reset_peak()
before = peak_bytes()
edit(model, Path(out), methods(20))
print(json.dumps({"before": before, "added": peak_bytes() - before, "checksums": found}))
"""


def edited(small: Path, model: Path, out: Path, offload: str, limit_bytes: int | None = None) -> dict[str, Any]:
    done = run_limited([sys.executable, "-c", EDIT, str(small), str(model), str(out), offload], limit_bytes)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.long
def test_a_model_of_twice_the_memory_is_edited_to_the_same_bits(tiny_model: Path, tmp_path: Path) -> None:
    config = llama_config(300, width=512, mlp_width=2048, context=128, num_hidden_layers=24, bos_token_id=1)
    size = write_random_model(tmp_path / "model", config, dtype=torch.float32, shard_bytes=100 << 20)
    whole = edited(tiny_model, tmp_path / "model", tmp_path / "whole", "none")
    assert whole["added"] > size, "a model that is not streamed does not fit"
    limit = size // 2
    part = edited(tiny_model, tmp_path / "model", tmp_path / "part", "disk", whole["before"] + limit)
    assert part["added"] <= limit
    assert len(whole["checksums"]) == 6 and part["checksums"] == whole["checksums"]


def test_without_a_gpu_host_memory_is_where_a_model_is_anyway(tiny_model: Path) -> None:
    reference = ModelReference(str(tiny_model))
    for placement in (Placement(), Placement(placement="one"), Placement(offload="cpu")):
        model = load_placed(reference, placement, ["1.down_proj"]).model
        assert not any(parameter.is_meta for parameter in model.parameters())


def test_layers_over_several_gpus_need_several(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"editing.placement: layers needs several GPUs.*editing.offload: cpu or disk"):
        load_placed(ModelReference(str(tiny_model)), Placement(placement="layers"), ["1.down_proj"])
    content = {"name": "r", "dataset": {"name": "pocket", "limit": 1}, "methods": ["ft_m"], "edit_counts": [1]}
    config = BenchmarkConfig.model_validate(content | {"editing": {"placement": "layers"}, "home": str(tmp_path)})
    with pytest.raises(ValueError, match=r"editing.placement: layers needs several GPUs"):
        make_plan(config)


def test_files_that_do_not_hold_a_weight_as_it_is_used_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    config = tiny_model / "config.json"
    (tmp_path / "config.json").write_bytes(config.read_bytes())
    for path in tiny_model.glob("*token*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tiny_model / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[f"other.{name}"] = tensors.pop(name)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=rf"editing.offload: disk needs {name}.*accepted: cpu, none"):
        load_placed(ModelReference(str(tmp_path)), Placement(offload="disk"), ["1.down_proj"])
