"""An engine that is started when it is first needed, so that a complete run starts none."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from overedit.tasks.engine.base import Engine, SwapReport
from overedit.tasks.engine.client import EngineClient
from overedit.tasks.engine.factory import load_in_process
from overedit.tasks.engine.options import EngineOptions, engine_kind
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.system.gpu_locks import gpu_lock

logger = logging.getLogger(__name__)


class EngineStart(NamedTuple):
    """One start of an engine, for the costs."""

    kind: str
    seconds: float


def open_engine(model: ModelReference, options: EngineOptions | None = None) -> Engine:
    """Start an engine: vLLM in its own process, so that a crash ends only that; transformers in this process.

    Args:
        model: Which model; its dtype is replaced by the one of the options.
        options: How the engine is started.

    Raises:
        ValueError: There is no such model, or the engine named in the options is not installed.
        EngineDiedError: The engine's process ended during the start.
    """
    options = options or EngineOptions()
    if engine_kind(options) == "vllm":
        return EngineClient(model, options)
    return load_in_process(model, options)


class LazyEngine:
    """Starts an engine on demand and keeps track of the weights that it holds.

    Not thread-safe: a swap during another thread's call would answer it with half-exchanged weights.

    Args:
        model: Which model; its dtype is replaced by the one of the options.
        options: How the engine is started.

    Raises:
        ValueError: The engine named in the options is not installed.
    """

    def __init__(self, model: ModelReference, options: EngineOptions | None = None) -> None:
        self._model, self._options = model, options or EngineOptions()
        self._engine: Engine | None = None
        self._held: Any = None
        self._gpu = ExitStack()
        self.kind = engine_kind(self._options)
        self.starts: list[EngineStart] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def started(self) -> Engine:
        """The running engine, started now if it is not running.

        Raises:
            ValueError: As `open_engine`.
            EngineDiedError: As `open_engine`.
        """
        if self._engine is None:
            self._gpu.enter_context(gpu_lock(first=self._options.workers if self.kind == "vllm" else None))
            self._engine = open_engine(self._model, self._options)
            self.starts.append(EngineStart(self._engine.kind, self._engine.start_seconds))
        return self._engine

    def ensure_weights(self, checkpoint: Path | None) -> SwapReport | None:
        """Swap the engine to a checkpoint's weights unless it holds them; an engine not started yet holds the base's.

        Args:
            checkpoint: The checkpoint's folder; None means the base's weights.

        Returns:
            What the swap did; None if no swap was needed.

        Raises:
            ValueError: As `Engine.swap`.
            RuntimeError: As `Engine.swap`.
        """
        identity = _identity(checkpoint)
        if self._held == identity:
            return None
        engine = self.started()
        self._held = object()  # equal to no identity: after a failed swap the weights are unknown
        report = engine.swap(checkpoint)
        self._held = identity
        if not report.verified:
            source = checkpoint or "the base"
            logger.warning("not all weights of %s could be compared: %s", source, "; ".join(report.not_compared))
        return report

    def close(self) -> None:
        """End the engine and free its model; `started` would start it again."""
        if self._engine is not None:
            self._engine.close()
        self._engine, self._held = None, None
        self._gpu.close()


def _identity(checkpoint: Path | None) -> Any:
    """What distinguishes two checkpoints: the folder and its record, since a run may write a folder again."""
    if checkpoint is None:
        return None
    record = checkpoint / "checkpoint.json"
    return checkpoint.resolve(), record.read_bytes() if record.is_file() else None
