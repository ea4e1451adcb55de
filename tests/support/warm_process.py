"""Processes forked from one that has imported the slow packages: each starts at once instead of after seconds.

The forking process imports and does nothing else: it starts no thread, and Prefect, which reads its settings when it
is imported, is left to the forked ones. A forked process has its own environment, session and working directory, and
its threads and exit functions end as in any interpreter.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, Self

from tests.support.paths import REPOSITORY

_LONGEST_REQUEST = 1 << 20


class ForkedProcess:
    """A process that runs a piece of Python; what it says is in `log`."""

    def __init__(self, pid: int, ended: socket.socket, log: Path | None) -> None:
        self.pid, self.log = pid, log
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs."""
        return self._read(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: It took longer.
        """
        code = self._read(timeout)
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return code

    def kill(self) -> None:
        """Kill it with SIGKILL, unless its end is known."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def said(self) -> str:
        """Its standard output and standard error so far."""
        assert self.log is not None
        return self.log.read_text()

    def _read(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], timeout)[0]:
            line = self._ended.recv(64)
            if not line:
                raise RuntimeError("the process that forks has ended")
            self.returncode = int(line)
            self._ended.close()
        return self.returncode


class WarmProcess:
    """A process that has imported some modules and forks.

    Args:
        modules: What it imports.
        setup: `module:function`, called before; what it returns is a context manager, and the imports are inside it.
        environment: What is set while it imports.
    """

    def __init__(
        self, modules: Sequence[str], *, setup: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = "import sys; from tests.support.warm_process import main; main(*sys.argv[1:])"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", command, str(theirs.fileno()), setup or "", *modules],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=os.environ | {"OMP_NUM_THREADS": "1"} | dict(environment or {}),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.wait()

    def run(
        self,
        code: str,
        *arguments: str,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> ForkedProcess:
        """Run Python code as `python -c CODE ARGUMENTS` would in the repository's folder, in a session of its own.

        Args:
            code: The program.
            arguments: What it finds in `sys.argv` after the first.
            log: Where its standard output and error are appended; None leaves them to this process's.
            environment: The whole of it; None takes this process's.
            descriptors: What it inherits; their numbers there are appended to the arguments.
        """
        if log is not None:
            log.touch()
        ended, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = {
            "code": code,
            "arguments": list(arguments),
            "log": None if log is None else str(log),
            "environment": dict(os.environ if environment is None else environment),
        }
        with theirs:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [theirs.fileno(), *descriptors])
        pid = int(ended.recv(64))
        return ForkedProcess(pid, ended, log)


def main(descriptor: str, setup: str, *modules: str) -> None:
    """Import, then fork at every request until the other end goes away; a forked process returns from `_serve`."""
    if setup:
        module, _, function = setup.partition(":")
        with getattr(import_module(module), function)():
            for name in modules:
                import_module(name)
    else:
        for name in modules:
            import_module(name)
    gc.collect()
    gc.freeze()  # what is shared with the forked processes stays shared
    program = _serve(socket.socket(fileno=int(descriptor)))
    code = _exit_code(program)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without taking apart, for a second, what was imported


def _exit_code(program: Callable[[], None]) -> int:
    try:
        program()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # as the interpreter does
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def _serve(connection: socket.socket) -> Callable[[], None]:
    """Returns in a forked process alone, with what it has to do."""
    running: dict[int, tuple[int, socket.socket]] = {}  # the descriptor of a process -> its id, and who waits for it
    while True:
        for ready in select.select([connection, *running], [], [])[0]:
            if ready is not connection:
                pid, waiting = running.pop(ready)
                os.close(ready)
                _tell(waiting, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                continue
            content, descriptors, _, _ = socket.recv_fds(connection, _LONGEST_REQUEST, 16)
            if not content:
                _end(pid for pid, _ in running.values())
            request, waiting = json.loads(content), socket.socket(fileno=descriptors[0])
            pid = os.fork()
            if pid == 0:
                for other in (connection, waiting, *(socket_ for _, socket_ in running.values())):
                    other.close()
                return _begin(request, descriptors[1:])
            for inherited in descriptors[1:]:
                os.close(inherited)
            waiting.send(str(pid).encode())
            running[os.pidfd_open(pid)] = (pid, waiting)


def _tell(waiting: socket.socket, code: int) -> None:
    try:
        waiting.send(str(code).encode())
    except OSError:  # nobody waits any more
        pass
    finally:
        waiting.close()


def _end(pids: Any) -> NoReturn:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def _begin(request: Mapping[str, Any], descriptors: Sequence[int]) -> Callable[[], None]:
    """Become the process that is asked for."""
    os.setsid()
    if request["log"] is not None:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.argv = ["-c", *request["arguments"], *map(str, descriptors)]
    return lambda: exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})
