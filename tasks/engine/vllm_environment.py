"""What vLLM needs from its surroundings, set in this one file: environment, quiet logs, its name among the packages."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

ENVIRONMENT = {
    # one process: weights are exchanged by handing tensors over, and nothing is pickled
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # threads are not tied to cores: other processes of the run want them too
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
"""What is set for vLLM where the user has not set it."""

BLOCK_TOKENS = 128
"""Keys and values are kept in blocks of so many tokens on a CPU."""


@contextmanager
def starting_vllm() -> Iterator[bool]:
    """Surroundings in which vLLM can be imported and started; yields whether it will run on the CPU.

    Whatever vLLM changes in the process while it starts, and others rely on, is put back.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)  # "Triton not available" is no news on a CPU
    set_num_threads = torch.set_num_threads
    with warnings.catch_warnings(), torch.random.fork_rng(enabled=not torch.cuda.is_available()):
        warnings.simplefilter("ignore")
        from vllm.platforms import current_platform

        on_cpu = bool(current_platform.is_cpu())
        try:
            with _nothing_compiled(on_cpu):
                yield on_cpu
        finally:
            torch.set_num_threads = set_num_threads  # vLLM puts a no-op in its place


@contextmanager
def vllm_named() -> Iterator[None]:
    """Within the block, `importlib.metadata.version("vllm")` answers on a CPU too.

    There the package is called `vllm-cpu`; the answer is then the one that vLLM gives itself, which must say "cpu".
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
    """The lm-eval class that runs vLLM, which asks for the version of `vllm` now and again later."""
    with vllm_named():
        from lm_eval.models.vllm_causallms import VLLM
    return VLLM


def register_in_process(architectures: list[str]) -> None:
    """Have vLLM look at the model's class in this process.

    It would do so in a second one, to keep CUDA out of this one, which takes some 15 s and has no use on a CPU.
    """
    from vllm.model_executor.models import ModelRegistry

    for architecture in architectures:
        registered = ModelRegistry.models.get(architecture)
        if registered is not None:
            ModelRegistry.register_model(architecture, registered.load_model_cls())


def kv_cache_bytes(config: Any, dtype: torch.dtype, context: int) -> int:
    """Memory for keys and values on a CPU, in bytes: 64 full sequences, but at most 1 GiB unless one alone takes more.

    Args:
        config: The model's configuration.
        dtype: What keys and values are kept in.
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
    """Keep vLLM from preparing anything for compilation on a CPU, where nothing of the model is compiled.

    Its small helper functions would be, in 15 s at the first score; and of some families it takes transformers' own
    class, which would be of no use to others in this process afterwards.
    """
    if not on_cpu:
        yield
        return
    from vllm.model_executor.models.transformers import base

    name = "TORCHDYNAMO_DISABLE"
    before, decorator = os.environ.get(name), base.support_torch_compile
    os.environ[name] = "1"
    base.support_torch_compile = lambda **_: lambda decorated: decorated
    try:
        yield
    finally:
        base.support_torch_compile = decorator
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
