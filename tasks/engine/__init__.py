"""The engine: one running model that generates, scores and serves lm-eval, and takes new weights while it runs."""

from overedit.tasks.engine.base import Engine, EngineDiedError, Generation, Score, SwapReport
from overedit.tasks.engine.lazy import EngineStart, LazyEngine, open_engine
from overedit.tasks.engine.options import EngineOptions, engine_kind

__all__ = [
    "Engine",
    "EngineDiedError",
    "EngineOptions",
    "EngineStart",
    "Generation",
    "LazyEngine",
    "Score",
    "SwapReport",
    "engine_kind",
    "open_engine",
]
