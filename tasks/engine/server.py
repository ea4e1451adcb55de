"""What runs in the process that an engine has for itself; `own_process` starts it, and is the other end."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from overedit.editing.trajectory.checkpoint import DamagedCheckpointError
from overedit.tasks.engine.base import Engine
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.models.reference import ModelReference


def serve(connection: socket.socket) -> None:
    """Answer questions until the other end goes away; an error that is not about a question ends the process."""
    sys.excepthook = _last_words(connection)
    engine: Engine | None = None
    for line in connection.makefile("rb"):
        question = json.loads(line)
        call, arguments = question["call"], question["arguments"]
        try:
            if engine is None:
                engine, answer = _start(**arguments), None
            else:
                answer = _answer(engine, call, arguments)
        except ValueError as error:
            _say(connection, refused=str(error), damaged=isinstance(error, DamagedCheckpointError))
        else:
            _say(connection, answer=answer)


def _start(model: Mapping[str, Any], options: Mapping[str, Any]) -> Engine:
    from overedit.tasks.engine.factory import load_in_process

    return load_in_process(ModelReference(**model), EngineOptions(**options))


def _answer(engine: Engine, call: str, arguments: Mapping[str, Any]) -> Any:
    if call == "swap":
        checkpoint = arguments["checkpoint"]
        return engine.swap(None if checkpoint is None else Path(checkpoint))
    if call == "score":
        return engine.score([(prompt, continuation) for prompt, continuation in arguments["pairs"]])
    if call in ("generate", "token_nlls"):
        return getattr(engine, call)(**arguments)
    return _lm_eval(engine, call, arguments["requests"])


def _lm_eval(engine: Engine, call: str, requests: Sequence[Sequence[Any]]) -> Any:
    """A method of the engine's lm-eval model, by its name."""
    from lm_eval.api.instance import Instance

    instances = [Instance(call, {}, tuple(arguments), i) for i, arguments in enumerate(requests)]
    return getattr(engine.language_model(), call)(instances, disable_tqdm=True)


def _say(connection: socket.socket, **reply: Any) -> None:
    connection.sendall(json.dumps(reply).encode() + b"\n")


def _last_words(connection: socket.socket) -> Any:
    """An excepthook that tells the other end what ended the process, in place of a traceback on the terminal."""

    def say(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        _say(connection, died=f"{kind.__name__}: {' '.join(str(error).split())}")

    return say


def _end_with(connection: socket.socket) -> None:
    """End this process when the other end goes away, also in the middle of an answer."""

    def watch() -> None:
        poll = select.poll()
        poll.register(connection, 0)  # reports nothing but the end
        poll.poll()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Serve the socket whose descriptor is the argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the run decides when this one ends
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a package prints is no result of the run
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)  # a copy in a helper's process would keep it open after this one's death
    _end_with(connection)
    serve(connection)
