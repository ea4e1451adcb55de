"""Puts other weights into one rank of a running vLLM engine, behind its back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from overedit.tasks.engine.vllm_comparison import Comparison
from overedit.tasks.engine.vllm_shards import is_embedding


def plant(engine: Any, rank: int, module: str, how: str) -> None:
    """Replace what a rank holds of a module's weight.

    Args:
        engine: A `VLLMEngine`.
        rank: Which rank; the others keep theirs.
        module: vLLM's module path.
        how: `permuted`: the same values with the rows in another order; `corrupted`: one value is another.
    """
    engine._llm.collective_rpc(_plant, args=(rank, module, how))


def compare(engine: Any, checkpoint: Path) -> Sequence[str]:
    """Compare a checkpoint with what the engine holds, as a swap does after writing it."""
    return tuple(engine._compare(engine._with_neighbours(engine._stored(checkpoint)), checkpoint))


def _plant(worker: Any, rank: int, path: str, how: str) -> None:
    if worker.rank != rank:
        return
    module = worker.model_runner.get_model().get_submodule(path)
    own = module.weight
    with torch.inference_mode():
        held = (own.data if is_embedding(module) else Comparison()._through_the_kernel(module)).clone()
        if how == "permuted":
            held = held.roll(1, dims=0)
        else:
            held[0, 0] += 1
        if is_embedding(module):
            own.data.copy_(held)
            return
    module.weight = torch.nn.Parameter(held.contiguous(), requires_grad=False)
    module.quant_method.process_weights_after_loading(module)
    if own.numel():  # a head keeps the weight that it shares with the embeddings, and multiplies with a packed copy
        module.weight = own
