"""The engine that starts when it is first needed, so that a run with nothing left to do starts none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from overedit.tasks.engine.base import Engine, Generation, Score, SwapReport
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
    """Start an engine: vLLM in a process of its own, which a crash ends alone; transformers in this one.

    Args:
        model: Which model; the dtype is the options'.
        options: How it is started.

    Raises:
        ValueError: There is no such model, or the engine asked for by name is not installed.
        EngineDiedError: It died while it started.
    """
    options = options or EngineOptions()
    if engine_kind(options) == "vllm":
        return EngineClient(model, options)
    return load_in_process(model, options)


class LazyEngine:
    """An `Engine` that starts at the first question, and remembers which weights it holds.

    Not for several threads at once: a swap with questions in flight would answer them with half-exchanged weights.

    Args:
        model: Which model; the dtype is the options'.
        options: How it is started.

    Raises:
        ValueError: The engine asked for by name is not installed.
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

    @property
    def start_seconds(self) -> float:
        """What the starts took so far, in seconds."""
        return sum(start.seconds for start in self.starts)

    def generate(self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str] = ()) -> list[Generation]:
        """Greedy continuations of the prompts, in their order."""
        return self._started().generate(prompts, max_tokens=max_tokens, stop=stop)

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Teacher-forced scores of (prompt, continuation) pairs; a blank joins them unless one is there."""
        return self._started().score(pairs)

    def token_nlls(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """NLL of each token of each text after its first, for perplexity; see `Engine.token_nlls`."""
        return self._started().token_nlls(texts)

    def swap(self, checkpoint: Path | None) -> SwapReport:
        """Write the edited tensors of a checkpoint folder into the running engine; None puts the base back."""
        engine = self._started()
        self._held = object()  # equal to nothing, should the swap break off
        report = engine.swap(checkpoint)
        self._held = _identity(checkpoint)
        return report

    def hold(self, checkpoint: Path | None) -> SwapReport | None:
        """Swap if the engine holds other weights than these; an engine that is not started holds the base's.

        Returns:
            What the swap did, or None if there was none to do.
        """
        return None if self._held == _identity(checkpoint) else self.swap(checkpoint)

    def language_model(self) -> Any:
        """The same running model as an lm-eval `LM`."""
        return self._started().language_model()

    def close(self) -> None:
        """Free the model, if it was loaded; the next question would start it again."""
        if self._engine is not None:
            self._engine.close()
        self._engine, self._held = None, None
        self._gpu.close()

    def _started(self) -> Engine:
        if self._engine is None:
            self._gpu.enter_context(gpu_lock(first=self.kind == "vllm"))
            self._engine = open_engine(self._model, self._options)
            self.starts.append(EngineStart(self._engine.kind, self._engine.start_seconds))
        return self._engine


def _identity(checkpoint: Path | None) -> Any:
    """What tells two checkpoints apart; the folder alone does not, since a run may write it again."""
    if checkpoint is None:
        return None
    record = checkpoint / "checkpoint.json"
    return checkpoint.resolve(), record.read_bytes() if record.is_file() else None
