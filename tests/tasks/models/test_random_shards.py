"""A random model written shard by shard, as the benchmark of large shapes does, is loaded mapped from its files."""

from __future__ import annotations

from pathlib import Path

import torch

from overedit.editing.model.weights import checksum
from overedit.tasks.models.loading import load_model
from overedit.tasks.models.reference import ModelReference
from tests.support.random_shards import write_random_model
from tests.support.tiny_models import llama_config


def test_shards_are_loaded_as_they_were_written_and_an_edit_leaves_them_alone(tmp_path: Path) -> None:
    config = llama_config(300, width=64, mlp_width=96, context=128, head_dim=32, bos_token_id=1, eos_token_id=2)
    size = write_random_model(tmp_path, config, shard_bytes=40_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 2
    before = [path.read_bytes() for path in files]
    model, tokenizer = load_model(ModelReference(str(tmp_path)))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert sum(parameter.nbytes for parameter in model.parameters()) == size
    weight = model.get_parameter("model.layers.1.mlp.down_proj.weight")
    assert 0.015 < float(weight.detach().float().std()) < 0.025
    bits = checksum(weight)
    with torch.no_grad():
        weight.add_(1)
    assert checksum(weight) != bits
    assert [path.read_bytes() for path in files] == before
    assert len(tokenizer("Ann")["input_ids"]) == 3
