"""The engine's configuration keys, and the choice between vLLM and transformers."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

logger = logging.getLogger(__name__)


class EngineOptions(BaseModel):
    """How the engine is started."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["auto", "vllm", "transformers"] = "auto"
    """`auto` is vLLM if it is installed, else transformers."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto` is the dtype of the stored weights, never a shorter one."""
    max_model_len: int | None = Field(default=None, ge=2)
    """The longest sequence, prompt and answer together, in tokens; None is the model's context length."""
    max_num_seqs: int = Field(default=256, ge=1)
    """The most sequences in a batch (vLLM)."""
    batch_tokens: int = Field(default=4096, ge=1)
    """The most tokens in a batch, padding included (transformers)."""
    gpu_memory_utilization: float = Field(default=0.85, gt=0, le=1)
    """Share of a GPU's memory that vLLM takes; without a GPU see `kv_cache_gib`."""
    kv_cache_gib: float | None = Field(default=None, gt=0)
    """Memory for keys and values; None leaves it to vLLM on a GPU, and is at most 1 GiB on a CPU."""
    enforce_eager: bool | None = None
    """Whether vLLM runs without compiling; None compiles on a GPU only."""
    seed: int = 0
    """vLLM requires a seed; nothing is sampled."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs over which vLLM splits each layer; without GPUs, processes on this machine."""
    pipeline_parallel: int = Field(default=1, ge=1)
    """Groups of `tensor_parallel` GPUs over which vLLM splits the layers, one stretch of them each (GPUs only)."""

    @property
    def workers(self) -> int:
        """Processes, one per GPU, in which vLLM runs the model."""
        return self.tensor_parallel * self.pipeline_parallel

    @model_validator(mode="after")
    def _several_workers_need_vllm(self) -> Self:
        if self.kind == "transformers":
            _check_one_worker(self)
        return self


def engine_kind(options: EngineOptions) -> str:
    """Which engine the options ask for: `vllm` or `transformers`.

    Raises:
        ValueError: vLLM is needed, by its name or for several GPUs, and is not installed.
    """
    installed = find_spec("vllm") is not None
    if options.kind == "vllm" and not installed:
        raise ValueError(
            "engine.kind: vllm is asked for, but is not installed; install it, or use auto or transformers"
        )
    if options.kind == "auto" and not installed:
        _check_one_worker(options)
        logger.warning("vLLM is not installed: the transformers engine is used instead")
        return "transformers"
    return "vllm" if options.kind == "auto" else options.kind


def check_devices(options: EngineOptions, num_gpus: int, config: Any) -> None:
    """Check that this machine and a model can be split as the options say, before anything is started.

    Args:
        options: The options.
        num_gpus: GPUs that this process may use; 0 means that vLLM runs on the CPU.
        config: The model's configuration.

    Raises:
        ValueError: There are too few GPUs, or it would run on the CPU in a pipeline, or the model's attention heads
            cannot be split so.
    """
    asked = f"engine.tensor_parallel: {options.tensor_parallel}"
    if options.pipeline_parallel > 1 and not num_gpus:
        raise ValueError(
            f"engine.pipeline_parallel: {options.pipeline_parallel} needs GPUs, and none is visible: vLLM on a CPU "
            "fails at the first answer of a pipeline; use 1, and engine.tensor_parallel to split each layer"
        )
    if num_gpus and options.workers > num_gpus:
        raise ValueError(
            f"{asked} x engine.pipeline_parallel: {options.pipeline_parallel} needs {options.workers} GPUs, and "
            f"{num_gpus} are visible (CUDA_VISIBLE_DEVICES)"
        )
    heads = getattr(config, "num_attention_heads", None)
    if heads is not None and heads % options.tensor_parallel:
        accepted = ", ".join(str(size) for size in range(1, heads + 1) if heads % size == 0)
        raise ValueError(f"{asked} does not divide the model's {heads} attention heads; accepted: {accepted}")


def _check_one_worker(options: EngineOptions) -> None:
    for key in ("tensor_parallel", "pipeline_parallel"):
        if (value := getattr(options, key)) > 1:
            raise ValueError(f"engine.{key}: {value} needs vLLM; the transformers engine accepts 1")
