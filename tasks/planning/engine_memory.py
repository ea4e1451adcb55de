"""Memory of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from overedit.editing.model.shape import ModelShape
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.engine.vllm_environment import kv_cache_bytes
from overedit.tasks.planning.trajectories import Memory

PROCESS_BYTES: Mapping[str, int] = MappingProxyType({"vllm": 950 << 20, "transformers": 0})
"""Assumed of Python, torch and vLLM in a process of their own; transformers runs in that of the run."""
CUDA_BYTES = 600 << 20
"""Assumed of CUDA's context in each process."""


def engine_memory(kind: str, options: EngineOptions, shape: ModelShape, config: Any, *, gpu_bytes: float) -> Memory:
    """What the engine adds to the run's memory at its peak.

    transformers: weights mapped from their files, and for a batch of `batch_tokens` one layer's activations and its
    logits in the weights' dtype and twice in float32. vLLM: a copy of the weights, the cache of keys and values, and
    the activations of a batch; on a GPU the share of its memory that it is given.

    Args:
        kind: `vllm` or `transformers`.
        options: The configuration's.
        shape: The model's, in the dtype of the engine.
        config: The model's transformers configuration.
        gpu_bytes: Memory of the GPU; 0 without one.
    """
    process = PROCESS_BYTES[kind]
    context = options.max_model_len or getattr(config, "max_position_embeddings", None) or 1024
    batch = shape.passing_bytes(options.batch_tokens) + shape.logits_bytes(options.batch_tokens)
    if kind == "transformers":
        if gpu_bytes:
            return Memory(host=process, gpu=CUDA_BYTES + shape.num_bytes + batch)
        return Memory(host=process + batch, mapped=shape.num_bytes)
    if gpu_bytes:
        return Memory(host=process, gpu=options.gpu_memory_utilization * gpu_bytes)
    dtype = {2: torch.bfloat16, 4: torch.float32}.get(shape.itemsize, torch.float32)
    cache = kv_cache_bytes(config, dtype, context) if options.kv_cache_gib is None else options.kv_cache_gib * 2**30
    return Memory(host=process + shape.num_bytes + cache)


def least_gpu_bytes(kind: str, options: EngineOptions, shape: ModelShape) -> float:
    """GPU memory that an engine cannot do without: vLLM's weights must fit into its share."""
    return shape.num_bytes / options.gpu_memory_utilization if kind == "vllm" else shape.num_bytes
