"""Overedit operated by Prefect on this machine: a real server, a real worker, and what Prefect's API says of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self, TypeVar

import httpx

from tests.support.command_line import write_configuration
from tests.support.paths import REPOSITORY

COMMAND = "from overedit.flows.cli.main import main; main()"
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

Found = TypeVar("Found")


def until(found: Callable[[], Found | None], *, seconds: float, what: str | Callable[[], str]) -> Found:
    """What a function finds, asked again and again; an error if it has not found it by then.

    Args:
        what: What the error says; a function is called when the time is over.
    """
    deadline = time.monotonic() + seconds
    while (value := found()) is None:
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.5)
    return value


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Webhook:
    """An HTTP server that keeps what it is sent."""

    def __init__(self) -> None:
        told: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None: ...

        self.told = told
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class Operation:
    """A server and workers of its own, all in one folder.

    Args:
        folder: For the home of the results, Prefect's files, and what the processes say.
        model: The model of the configuration `home/c.yaml`.
        settings: Further environment of the processes.
    """

    def __init__(self, folder: Path, model: Path, settings: Mapping[str, str] | None = None) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir()
        write_configuration(self.home, model)
        self.port, self.reports_port = free_port(), free_port()
        self.server = f"http://127.0.0.1:{self.port}"
        plain = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.environment = plain | {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(folder / "prefect" / "storage"),
            "PREFECT_API_URL": f"{self.server}/api",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",  # instead of 60
            "OVEREDIT_REPORTS_URL": f"http://127.0.0.1:{self.reports_port}",
            "OMP_NUM_THREADS": "1",
            **(settings or {}),
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        ports = ("--port", str(self.port), "--reports-port", str(self.reports_port))
        self.start("ui", "ui", "--home", str(self.home), *ports)
        until(self.is_healthy, seconds=180, what=lambda: f"the server answers; it says {self.said('ui')}")
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for name in reversed(self.processes):
                with suppress(subprocess.TimeoutExpired):  # a worker waits for a server whose database is locked
                    self.stop(name)
        finally:
            for process in self.processes.values():
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # it is the first of a session of its own
                    process.wait()

    def start(self, name: str, *arguments: str) -> None:
        """Start a command of Overedit in the background; what it says is kept below its name."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-c", COMMAND, *arguments],
                cwd=REPOSITORY,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_worker(self, name: str = "worker") -> None:
        self.start(name, "worker", "--home", str(self.home))

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it as a service manager or Ctrl-C does; gives its exit code."""
        process = self.processes[name]
        if process.poll() is None:
            process.send_signal(number)
        return process.wait(timeout=60)

    def overedit(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Overedit to its end."""
        return subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments],
            cwd=REPOSITORY,
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def is_healthy(self) -> bool | None:
        assert self.processes["ui"].poll() is None, self.said("ui")
        try:
            return httpx.get(f"{self.server}/api/health", timeout=5).status_code == 200 or None
        except httpx.HTTPError:
            return None

    def answer(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """An answer of Prefect's API; where SQLite is locked, it says 503 at once or only after a minute."""

        def answered() -> httpx.Response | None:
            answer = httpx.request(method, f"{self.server}/api{path}", json=body, timeout=100)
            return None if answer.status_code == 503 else answer

        return until(answered, seconds=150, what=f"{method} {path} is answered")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The content of an answer."""
        answer = self.answer(method, path, body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> Any:
        return self.ask("GET", f"/deployments/name/{name}")

    def run(self, deployment: str, **parameters: Any) -> str:
        """Start a flow run as the UI does; gives its id."""
        path = f"/deployments/{self.deployment(deployment)['id']}/create_flow_run"
        return str(self.ask("POST", path, {"parameters": parameters, "enforce_parameter_schema": True})["id"])

    def scheduled(self, deployment: str, **parameters: Any) -> Any:
        """A flow run that a schedule has started: one that is due every 20 seconds, and removed after its first run."""
        path = f"/deployments/{self.deployment(deployment)['id']}/schedules"
        schedule = {"active": True, "schedule": {"interval": 20}, "parameters": parameters}
        (made,) = self.ask("POST", path, [schedule])
        due = until(lambda: next(iter(self._started_by_schedule()), None), seconds=120, what=self._state_of_schedules)
        self.ask("DELETE", f"{path}/{made['id']}")
        return due

    def _state_of_schedules(self) -> str:
        runs = "\n".join(f"{run['name']} {run['auto_scheduled']} {run['state']}" for run in self.flow_runs())
        return f"a schedule fires; runs:\n{runs}\n" + "\n".join(self.said(name)[-2000:] for name in self.processes)

    def _started_by_schedule(self) -> list[Any]:
        return [run for run in self.flow_runs() if run["auto_scheduled"] and run["start_time"]]

    def flow_run(self, identifier: str) -> Any:
        return self.ask("GET", f"/flow_runs/{identifier}")

    def flow_runs(self, **filters: Any) -> list[Any]:
        return list(self.ask("POST", "/flow_runs/filter", {"flow_runs": filters}))

    def ended(self, identifier: str, *, seconds: float = 180) -> Any:
        """The flow run, when it has ended."""
        return until(
            lambda: run if (run := self.flow_run(identifier))["state_type"] in ENDED else None,
            seconds=seconds,
            what=lambda: f"the flow run ends; it is {self.flow_run(identifier)['state']}",
        )

    def logs(self, identifier: str) -> list[Any]:
        """The log lines of a flow run, oldest first."""
        body = {"logs": {"flow_run_id": {"any_": [identifier]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return list(self.ask("POST", "/logs/filter", body))
