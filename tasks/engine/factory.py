"""Starting an engine in this process."""

from __future__ import annotations

from overedit.tasks.engine.base import Engine
from overedit.tasks.engine.options import EngineOptions, engine_kind
from overedit.tasks.models.reference import ModelReference


def load_in_process(model: ModelReference, options: EngineOptions) -> Engine:
    """Start an engine in this process.

    Args:
        model: Which model; its dtype is replaced by the one of the options.
        options: Which engine, and how it is started.

    Raises:
        ValueError: There is no such model, or the engine named in the options is not installed.
    """
    if engine_kind(options) == "vllm":
        from overedit.tasks.engine.vllm_engine import VLLMEngine

        return VLLMEngine(model, options)
    from overedit.tasks.engine.transformers_engine import TransformersEngine

    return TransformersEngine(model, options)
