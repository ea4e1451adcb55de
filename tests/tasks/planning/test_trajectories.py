"""What editing takes along a trajectory, against the editor's own calls and the files that it writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from overedit.editing.methods.base import EditResult, MethodConfig
from overedit.editing.methods.fine_tuning.tuner import SiteTuning
from overedit.editing.methods.ft_m import FtM
from overedit.editing.methods.locft_bf import LocftBf
from overedit.editing.methods.registry import METHODS
from overedit.editing.methods.ultraedit import UltraEdit
from overedit.editing.model.shape import ModelShape
from overedit.editing.trajectory.interruption import EVERY_TEN_MINUTES
from overedit.editing.trajectory.runner import run_trajectory
from overedit.editing.trajectory.settings import Schedule, Source, TrajectorySettings
from overedit.tasks.planning.trajectories import (
    Memory,
    Tokens,
    calls,
    checkpoint_bytes,
    checkpoints_bytes,
    editing_memory,
    edits_made,
    operations,
)
from tests.support.published_shapes import llama_3_8b
from tests.support.teachable_models import byte_tokenizer, some_requests
from tests.support.tiny_models import tiny

TOKENS = Tokens(8, 3)
SHAPE = ModelShape.of(tiny("llama"), itemsize=4)


def edited(config: MethodConfig, counts: Sequence[int], turn_size: int, folder: Path, seen: Counter[int]) -> list[Any]:
    """Edit a tiny model, and count the requests of each call."""
    entry = METHODS[config.method]

    def counting(model: Any, tokenizer: Any, requests: Any, *rest: Any, **more: Any) -> EditResult:
        seen[len(requests)] += 1
        return entry.function(model, tokenizer, requests, *rest, **more)

    settings = TrajectorySettings(
        Schedule(tuple(counts), turn_size), Source(lambda count: str(count), "m", "d"), folder, EVERY_TEN_MINUTES
    )
    method = entry._replace(function=counting)
    arguments = (tiny("llama"), byte_tokenizer(), some_requests(max(counts)), config)
    return list(run_trajectory(*arguments, method=method, settings=settings))


CONFIGS = [
    UltraEdit(sites=("1.down_proj", "2.up_proj"), learning_rate=1e-3),
    FtM(site="1.down_proj", max_steps=1),
    LocftBf(site="1.down_proj", epochs=1),
    LocftBf(site="1.down_proj", epochs=1, schedule="continue"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["ultraedit", "ft_m", "restart", "continue"])
@pytest.mark.parametrize(("counts", "turn_size"), [((2, 5, 7), 2), ((4, 6), 2), ((1, 3), 100)])
def test_calls_and_checkpoints_are_those_of_the_editor(
    config: MethodConfig, counts: tuple[int, ...], turn_size: int, tmp_path: Path
) -> None:
    seen: Counter[int] = Counter()
    checkpoints = edited(config, counts, turn_size, tmp_path, seen)
    of_calls = calls(config, counts, turn_size)
    assert of_calls == seen
    assert edits_made(of_calls) == sum(size * number for size, number in seen.items())
    last = checkpoints[-1].folder
    state = sum(tensor.nbytes for tensor in checkpoints[-1].state().values())
    real = sum(path.stat().st_size for path in last.glob("*.*") if path.name != "costs.json")
    counted = checkpoint_bytes(config, SHAPE, state, num_turns=len(checkpoints[-1].record.log))
    assert (last / "weights.safetensors").stat().st_size < counted
    assert real == pytest.approx(counted, rel=0.15, abs=1500)
    assert checkpoints_bytes(config, SHAPE, TOKENS, counts, turn_size) > len(counts) * SHAPE.values(config.sites) * 4


def test_operations_add_up_over_the_calls() -> None:
    config = UltraEdit(sites=("1.down_proj",))
    one, more = (operations(config, SHAPE, TOKENS, {10: number}) for number in (1, 7))
    assert more == pytest.approx(7 * one)


def test_memory_counts_weights_where_they_are() -> None:
    """Mapped weights can be given back; a cast copies them; on a GPU the copies of the edited tensors stay outside."""
    config: SiteTuning = FtM(site="1.down_proj")
    common: dict[str, Any] = {"process_bytes": 1000, "on_gpu": False}
    mapped = editing_memory(config, SHAPE, TOKENS, {5: 1}, is_mapped=True, **common)
    cast = editing_memory(config, SHAPE, TOKENS, {5: 1}, is_mapped=False, **common)
    edited_bytes = 4 * 32 * 48
    assert mapped.mapped == SHAPE.num_bytes
    assert cast == Memory(host=mapped.host + SHAPE.num_bytes - edited_bytes)
    on_gpu = editing_memory(config, SHAPE, TOKENS, {5: 1}, is_mapped=False, process_bytes=1000, on_gpu=True)
    assert on_gpu.gpu > SHAPE.num_bytes
    assert on_gpu.host == 1000 + 2 * edited_bytes + 24 * 32 * 48
    assert mapped + on_gpu == Memory(mapped.host + on_gpu.host, mapped.mapped, on_gpu.gpu)


def test_streamed_layers_leave_two_of_them_on_the_device() -> None:
    """32 layers of 218,112,000 values; two matrices of 128,256 x 4,096 and a norm; all in two bytes."""
    with torch.device("meta"):
        shape = ModelShape.of(AutoModelForCausalLM.from_config(llama_3_8b()), itemsize=2)
    site = 4096 * 14336
    layer, outside = 218_103_808 + 2 * 4096, 2 * 128_256 * 4096 + 4096
    assert shape.resident_bytes(["22.down_proj"]) == 2 * (outside + site + 2 * layer)
    common: dict[str, Any] = {"process_bytes": 0, "is_mapped": True}
    config = FtM(site="22.down_proj")
    whole, cpu, disk = (
        editing_memory(config, shape, TOKENS, {5: 1}, on_gpu=True, offload=offload, **common)
        for offload in ("none", "cpu", "disk")
    )
    assert whole.gpu - cpu.gpu == whole.gpu - disk.gpu == shape.num_bytes - shape.resident_bytes(config.sites)
    assert cpu.host - whole.host == shape.num_bytes and disk.host == whole.host
    on_cpu = editing_memory(config, shape, TOKENS, {5: 1}, on_gpu=False, offload="disk", **common)
    assert on_cpu.mapped == shape.resident_bytes(config.sites)
