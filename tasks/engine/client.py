"""The client of an engine in its own process, which can crash or be killed without ending the run.

Calls and replies are one line of JSON each, over a pair of connected sockets; `server` is the other end. Each end
notices at once when the other has ended: a dead engine raises `EngineDiedError` here, and an engine whose run has died
ends itself.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from overedit.editing.trajectory.checkpoint import DamagedCheckpointError
from overedit.tasks.engine import server
from overedit.tasks.engine.base import EngineDiedError, Generation, Score, SwapReport
from overedit.tasks.engine.options import EngineOptions, engine_kind
from overedit.tasks.models.reference import ModelReference

logger = logging.getLogger(__name__)

_SECONDS_TO_END = 5.0


class EngineClient:
    """An engine in its own process.

    Args:
        model: Which model; its dtype is replaced by the one of the options.
        options: How the engine is started.

    Raises:
        ValueError: There is no such model, or the engine cannot run it.
        EngineDiedError: The process ended during the start.
    """

    def __init__(self, model: ModelReference, options: EngineOptions) -> None:
        begun = time.perf_counter()
        self.kind = engine_kind(options)
        _free_device_memory()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from {server.__name__} import main; main()", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=_environment(options.workers),
            )
        self._socket, self._lines = ours, ours.makefile("rb")
        self._workers: list[Any] = []
        try:
            self._ask("start", model=asdict(model), options=options.model_dump(mode="json"))
            self._workers = _workers(self._process.pid) if options.workers > 1 else []
        except BaseException:
            self.close()  # a process that refused the model would wait for the next request for good
            raise
        self.start_seconds = time.perf_counter() - begun
        logger.info("%s started with %s in %.1f s", self.kind, model.name, self.start_seconds)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def generate(self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str] = ()) -> list[Generation]:
        """Continue prompts greedily; see `Engine.generate`."""
        answers = self._ask("generate", prompts=list(prompts), max_tokens=max_tokens, stop=list(stop))
        return [Generation(*answer) for answer in answers]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Score (prompt, continuation) pairs with teacher forcing; see `Engine.score`."""
        return [Score(*map(tuple, answer)) for answer in self._ask("score", pairs=list(pairs))]

    def token_nlls(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """Compute the NLL of each token of each text after its first; see `Engine.token_nlls`."""
        return [tuple(nlls) for nlls in self._ask("token_nlls", texts=list(texts))]

    def swap(self, checkpoint: Path | None) -> SwapReport:
        """Write a checkpoint's edited tensors into the running model; see `Engine.swap`."""
        answer = self._ask("swap", checkpoint=None if checkpoint is None else str(checkpoint.absolute()))
        seconds, bytes_written, verified, not_compared = answer
        return SwapReport(seconds, bytes_written, verified, tuple(not_compared))

    def language_model(self) -> Any:
        """The same running model as an lm-eval `LM`."""
        from overedit.tasks.engine.lm_eval_adapters import RemoteLanguageModel

        return RemoteLanguageModel(self._ask)

    def close(self) -> None:
        """Kill the process, and its workers, which frees the model."""
        self._process.kill()
        self._process.wait()
        _end_all(self._workers)
        self._lines.close()
        self._socket.close()

    def _ask(self, call: str, **arguments: Any) -> Any:
        """Send a call and wait for its reply; an interrupted wait ends the engine, or its reply would come next.

        Raises:
            ValueError: The engine rejected the call.
            EngineDiedError: There was no reply.
        """
        try:
            line = self._exchange(json.dumps({"call": call, "arguments": arguments}).encode())
        except BaseException:
            self.close()
            raise
        reply = json.loads(line) if line else {}
        if not line or "died" in reply:
            how = self._end()
            raise EngineDiedError(f"the {self.kind} engine died during {call}: {reply.get('died') or how}")
        if "refused" in reply:
            raise (DamagedCheckpointError if reply["damaged"] else ValueError)(reply["refused"])
        return reply["answer"]

    def _exchange(self, request: bytes) -> bytes:
        """Send a line and read the reply; empty if the process ended before the reply was complete."""
        try:
            self._socket.sendall(request + b"\n")
            line = self._lines.readline()
        except (OSError, ValueError):  # the sockets are closed
            return b""
        return line if line.endswith(b"\n") else b""

    def _end(self) -> str:
        """Describe how the process ended, after a short wait: its socket closes before it exits."""
        try:
            code = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            code = 0
        self.close()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _free_device_memory() -> None:
    """Free the device memory that torch has cached in this process: the other process needs it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _environment(workers: int) -> dict[str, str]:
    """This process's environment, with torch's number of threads, of which each worker gets its share."""
    return os.environ | {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // workers))}


def _workers(pid: int) -> list[Any]:
    """The workers of an engine's process, as psutil's; Python's cleaner of shared memory, which ends last, is none."""
    import psutil  # vLLM needs it too

    below = psutil.Process(pid).children(recursive=True)
    return [process for process in below if not any("resource_tracker" in part for part in process.cmdline())]


def _end_all(workers: list[Any]) -> None:
    """Kill workers and wait until they have ended: a worker holds its GPU's memory until then."""
    if workers:
        import psutil

        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        psutil.wait_procs(workers, timeout=_SECONDS_TO_END)
