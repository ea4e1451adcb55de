"""The engine's configuration keys, and the choice between vLLM and transformers."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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


def engine_kind(options: EngineOptions) -> str:
    """Which engine the options ask for: `vllm` or `transformers`.

    Raises:
        ValueError: vLLM is asked for by name and is not installed.
    """
    installed = find_spec("vllm") is not None
    if options.kind == "vllm" and not installed:
        raise ValueError(
            "engine.kind: vllm is asked for, but is not installed; install it, or use auto or transformers"
        )
    if options.kind == "auto" and not installed:
        logger.warning("vLLM is not installed: the transformers engine is used instead")
        return "transformers"
    return "vllm" if options.kind == "auto" else options.kind
