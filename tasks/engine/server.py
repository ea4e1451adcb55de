"""The process of an engine: answers the calls of `client`, which starts it."""

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
from overedit.tasks.system.untrusted import one_line


def serve(connection: socket.socket) -> None:
    """Answer calls until the client ends; any error but a rejected call ends the process."""
    sys.excepthook = _report_error(connection)
    engine: Engine | None = None
    for line in connection.makefile("rb"):
        request = json.loads(line)
        call, arguments = request["call"], request["arguments"]
        try:
            if engine is None:
                engine, answer = _start(**arguments), None
            else:
                answer = _answer(engine, call, arguments)
        except ValueError as error:
            _send(connection, refused=str(error), damaged=isinstance(error, DamagedCheckpointError))
        else:
            _send(connection, answer=answer)


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
    """Call a method of the engine's lm-eval model by its name."""
    from lm_eval.api.instance import Instance

    instances = [Instance(call, {}, tuple(arguments), i) for i, arguments in enumerate(requests)]
    return getattr(engine.language_model(), call)(instances, disable_tqdm=True)


def _send(connection: socket.socket, **reply: Any) -> None:
    connection.sendall(json.dumps(reply).encode() + b"\n")


def _report_error(connection: socket.socket) -> Any:
    """Make an excepthook that sends the error to the client instead of printing a traceback."""

    def report(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
        _send(connection, died=one_line(error))

    return report


def _end_with(connection: socket.socket) -> None:
    """End this process when the client ends, even during a call."""

    def watch() -> None:
        poll = select.poll()
        poll.register(connection, 0)  # reports only that the other end closed
        poll.poll()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Serve the socket whose file descriptor is the command-line argument."""
    # Ctrl-C reaches the whole group; the client decides when this process ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # packages' prints must not mix with the run's output
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)  # a child's copy would keep it open after this process ends
    _end_with(connection)
    serve(connection)
