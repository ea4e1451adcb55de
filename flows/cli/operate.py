"""The commands that operate scheduled runs: Prefect's server with its UI, a worker, and the deployments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread, Timer
from typing import Annotated

import typer
import yaml

from overedit.flows.cli.results import results_home
from overedit.flows.launch import WORK_POOL, answering_server, default_home, prepare_operation

PATIENCE = 20.0
"""Seconds that Prefect's server gets to stop."""

ResultsHome = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="The folder of the results, or its URL; $OVEREDIT_HOME or ~/overedit if not given.",
        callback=lambda home: None if home is None else results_home(home),
    ),
]


def ui(
    home: ResultsHome = None,
    port: Annotated[int | None, typer.Option(help="Of Prefect's server; 4200 if not given.")] = None,
    reports_port: Annotated[int, typer.Option(help="Of the reports and the site.")] = 4201,
) -> None:
    """Start Prefect's server with its UI, and a server of the reports and the site, on the loopback address."""
    from overedit.tasks.report.server import reports_server
    from overedit.tasks.storage.working_copy import url_of

    prepare_operation()
    home = (home or default_home()).absolute()
    if (url := url_of(home)) is not None:
        raise ValueError(f"home: {url} is a URL; accepted: a folder of this machine, e.g. a copy of its reports/")
    try:
        reports = reports_server(home, reports_port)
    except OSError as error:
        raise RuntimeError(f"--reports-port: port {reports_port} cannot be used: {error.strerror}") from error
    with reports, TemporaryDirectory() as folder:
        command = ["server", "start", "--host", "127.0.0.1", *(["--port", str(port)] if port else [])]
        settings = _logging_settings(Path(folder))

        def serve_reports() -> None:
            Thread(target=reports.serve_forever, daemon=True).start()
            print(f"reports and site of {home}: http://127.0.0.1:{reports.server_port}", flush=True)

        code = _run_until_stopped([sys.executable, "-m", "prefect", *command], settings, begin=serve_reports)
        reports.shutdown()
    raise typer.Exit(code)


def _logging_settings(folder: Path) -> dict[str, str]:
    """The server's logging: the user's, or else Prefect's own with a filter."""
    from prefect.logging.configuration import DEFAULT_LOGGING_SETTINGS_PATH
    from prefect.settings import PREFECT_LOGGING_SETTINGS_PATH

    if PREFECT_LOGGING_SETTINGS_PATH.value().exists():
        return {}
    content = yaml.safe_load(DEFAULT_LOGGING_SETTINGS_PATH.read_text(encoding="utf-8"))
    content["filters"] = {"locked": {"()": "overedit.flows.server_log.WithoutLockedDatabase"}}
    content["loggers"]["docket.dependencies"] = {"filters": ["locked"]}
    path = folder / "logging.yml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return {"PREFECT_LOGGING_SETTINGS_PATH": str(path)}


def worker(home: ResultsHome = None) -> None:
    """Start a worker that runs what is due or was started by hand; results go to the home."""
    from overedit.tasks.storage.working_copy import shown_path

    prepare_operation()
    home = (home or default_home()).absolute()
    home.mkdir(parents=True, exist_ok=True)
    settings = {"PREFECT_API_URL": answering_server(), "OVEREDIT_HOME": shown_path(home)}
    print(f"results go to {shown_path(home)}", flush=True)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", WORK_POOL]
    os.execve(sys.executable, command, os.environ | settings)


def deploy(
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="Notify this address of failed runs by POST, as JSON.")
    ] = None,
) -> None:
    """Register the deployments, their work pool and the automations with Prefect's server."""
    prepare_operation()
    from overedit.flows.deploy import deploy_all

    for line in deploy_all(answering_server(), webhook=webhook):
        print(line)


def _run_until_stopped(command: Sequence[str], settings: Mapping[str, str], *, begin: Callable[[], None]) -> int:
    """Run a command; SIGTERM and Ctrl-C stop it, and its exit code is waited for.

    Args:
        command: The command.
        settings: Environment variables that it gets in addition.
        begin: Called first, when a signal is no longer missed.
    """
    running: list[subprocess.Popen[bytes]] = []
    asked = Event()

    def stop(*_: object) -> None:
        asked.set()
        for process in running:
            process.terminate()
            late = Timer(PATIENCE, process.kill)  # a server that is still starting may not end
            late.daemon = True
            late.start()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    begin()
    running.append(subprocess.Popen(command, env=os.environ | settings))
    if asked.is_set():
        stop()
    code = running[0].wait()
    return code if code >= 0 else 128 - code
