"""A random model of any shape, written shard by shard: the disk bounds its size, and not the memory."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedConfig

from tests.support.tiny_llama import byte_tokenizer

_DRAWS = 100_000_007
"""Random numbers that are drawn, at the most; larger models repeat them (a prime, so that no two rows are equal)."""


def write_random_model(
    folder: Path, config: PreTrainedConfig, *, dtype: torch.dtype = torch.bfloat16, shard_bytes: int = 1 << 30
) -> int:
    """Write a model folder with random weights (norms 1, matrices normal with a standard deviation of 0.02).

    Args:
        folder: The folder; made if it does not exist.
        config: The model's configuration; its vocabulary has at least the 259 tokens of the byte tokenizer.
        dtype: Of the weights.
        shard_bytes: The most bytes of a file; a larger tensor has a file of its own. It bounds the memory.

    Returns:
        Bytes of all weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    config.architectures, config.dtype = [type(model).__name__], dtype
    config.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    total = sum(math.prod(shape) for shape in shapes.values()) * dtype.itemsize
    generator = torch.Generator().manual_seed(0)
    largest = max(math.prod(shape) for shape in shapes.values())
    draws = torch.empty(min(_DRAWS, largest), dtype=dtype).normal_(0, 0.02, generator=generator)
    places: dict[str, str] = {}
    shards = list(_shards(shapes, dtype.itemsize, shard_bytes))
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: _values(shapes[name], draws, generator) for name in names}, folder / file, {"format": "pt"})
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def _shards(shapes: Mapping[str, torch.Size], itemsize: int, most: int) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, shape in shapes.items():
        num_bytes = math.prod(shape) * itemsize
        if names and size + num_bytes > most:
            yield names
            names, size = [], 0
        names.append(name)
        size += num_bytes
    yield names


def _values(shape: torch.Size, draws: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=draws.dtype)
    count = math.prod(shape)
    first = int(torch.randint(len(draws), (), generator=generator))
    return draws.roll(-first).repeat(-(-count // len(draws)))[:count].reshape(shape)
