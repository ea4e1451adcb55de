"""Starting an engine in this process."""

from __future__ import annotations

from overedit.tasks.engine.base import Engine
from overedit.tasks.engine.options import EngineOptions, engine_kind


def load_in_process(model: str, options: EngineOptions, *, revision: str | None = None) -> Engine:
    """Start an engine in this process; see `open_engine`."""
    if engine_kind(options) == "vllm":
        from overedit.tasks.engine.vllm_engine import VLLMEngine

        return VLLMEngine(model, options, revision=revision)
    from overedit.tasks.engine.transformers_engine import TransformersEngine

    return TransformersEngine(model, options, revision=revision)
