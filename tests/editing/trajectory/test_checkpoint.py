"""What a checkpoint costs on disk: the edited tensors and a header, and nothing that grows with the edits."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from overedit.editing.methods.locft_bf import PRESETS, LocftBf
from overedit.editing.methods.registry import METHODS
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.trajectory.runner import run_trajectory
from overedit.editing.trajectory.settings import Schedule, Source, TrajectorySettings
from tests.support.published_shapes import llama_3_8b
from tests.support.teachable_models import DOWN, byte_tokenizer, some_requests
from tests.support.tiny_models import tiny

COUNTS = tuple(range(2, 21, 2))
CODES = {torch.float32: "F32", torch.bfloat16: "BF16"}


def file_bytes(parameters: dict[str, torch.Tensor]) -> int:
    """The bytes of a safetensors file: eight for the header's length, the header, padded to eights, and the values."""
    header, end = {}, 0
    for name, tensor in sorted(parameters.items()):
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    length = len(json.dumps(header, separators=(",", ":")))
    return 8 + -(-length // 8) * 8 + end


@pytest.mark.parametrize("dtype", list(CODES))
@pytest.mark.parametrize("schedule", ["restart", "continue"])
def test_ten_checkpoints_cost_the_edited_tensors_only(tmp_path: Path, dtype: torch.dtype, schedule: str) -> None:
    model = tiny("llama", dtype=dtype)
    config = LocftBf.model_validate({"site": "1.down_proj", "batch_size": 5, "epochs": 2, "schedule": schedule})
    requests = some_requests(COUNTS[-1])
    settings = TrajectorySettings(
        Schedule(COUNTS, 5), Source(key_at=lambda _: "k", model="tiny", model_digest="d"), tmp_path
    )
    folders = [
        checkpoint.folder
        for checkpoint in run_trajectory(
            model, byte_tokenizer(), requests, config, method=METHODS["locft_bf"], settings=settings
        )
    ]
    assert len(folders) == 10
    edited = {DOWN["llama"]: model.get_parameter(DOWN["llama"])}
    everything = 0
    for folder in folders:
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
        assert sizes.keys() == {"weights.safetensors", "checkpoint.json", "costs.json"}, "no state, no optimizer"
        assert sizes["weights.safetensors"] == file_bytes(edited)
        assert sizes["weights.safetensors"] == 8 + header_length(folder) + 32 * 48 * dtype.itemsize
        assert sizes["checkpoint.json"] + sizes["costs.json"] < 2_560
        everything += sum(sizes.values())
    records = [(folder / "checkpoint.json").read_text() for folder in folders]
    sizes_but_turns = [len(text) - len(json.dumps(json.loads(text)["log"], indent=1)) for text in records]
    assert max(sizes_but_turns) - min(sizes_but_turns) < 100, "it has the length of its numbers, not of the edits"
    assert max(len(json.loads(text)["log"]) for text in records) == (1 if schedule == "restart" else 2)
    assert everything == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()), "nothing beside"


def header_length(folder: Path) -> int:
    content = (folder / "weights.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    assert set(json.loads(content[8 : 8 + length])) == {DOWN["llama"]}, "no metadata either"
    return int(length)


def test_ten_checkpoints_of_llama_3_8b_are_1_174_406_320_bytes(repository: Path) -> None:
    """Of its shape, from the published site; no weights are needed."""
    with torch.device("meta"):
        model = LlamaForCausalLM(llama_3_8b()).to(torch.bfloat16)
    assert sum(parameter.numel() for parameter in model.parameters()) == 8_030_261_248
    names = Anatomy.of(model).site_parameters(PRESETS["meta-llama/Meta-Llama-3-8B-Instruct"].site)
    edited = {name: model.get_parameter(name) for name in names}
    assert {name: tuple(tensor.shape) for name, tensor in edited.items()} == {
        "model.layers.22.mlp.down_proj.weight": (4096, 14336)
    }
    tensors = 10 * sum(tensor.numel() * tensor.element_size() for tensor in edited.values())
    assert tensors == 1_174_405_120
    assert 10 * file_bytes(edited) == 1_174_406_320
    assert "1,174,406,320 bytes" in (repository / "docs" / "long-runs.md").read_text()
