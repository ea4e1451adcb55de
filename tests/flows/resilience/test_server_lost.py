"""Prefect's real server is killed in the middle of a run: the run goes on to its end, with the same rows."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from overedit.flows.config.models import BenchmarkConfig
from overedit.tasks.system import task_runs
from tests.support.benchmark_run import configuration, rows_of, server_settings
from tests.support.warm_process import ForkedProcess, WarmProcess

COMMAND = "from overedit.flows.cli.main import main; main()"


def wait_for(path: Path, process: ForkedProcess) -> None:
    deadline = time.monotonic() + 240
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists(), "the run came this far"


def kill_server_of(process: int) -> None:
    """The server that `overedit run` has started is its child; what the child started ends with it."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    servers = [int(child) for child in children if b"uvicorn" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert servers
    for server in servers:
        os.kill(server, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.long
def test_a_run_whose_server_is_killed_goes_on_to_its_end(
    warm_process: WarmProcess, tiny_model: Path, tmp_path: Path
) -> None:
    from overedit.flows.benchmark import benchmark

    plain = configuration(tmp_path, tiny_model)
    more = {"methods": plain["methods"][1:], "edit_counts": [1, 12], "perplexity": plain["perplexity"]}
    whole = configuration(tmp_path / "whole", tiny_model, **more)
    benchmark.fn(BenchmarkConfig.model_validate(whole))  # the body alone needs no server
    home = tmp_path / "lost"
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(configuration(home, tiny_model, **more)))
    settings = server_settings(tmp_path / "prefect") | {"PREFECT_CLIENT_MAX_RETRIES": "0"}  # 4 s less at every call
    run = warm_process.run(
        COMMAND, "run", str(tmp_path / "run.yaml"), environment=os.environ | settings, log=tmp_path / "log.txt"
    )
    wait_for(home / "runs" / "r" / "ft-m" / "order-0" / "00000001" / "checkpoint.json", run)
    kill_server_of(run.pid)
    said = run.said
    assert run.wait(timeout=300) == 0, said()[-3000:]
    assert "Prefect's server went away; the run goes on without it" in said()
    assert "Traceback" not in said()
    assert f"report: {home / 'reports' / 'r.html'}" in said().replace("\n", "")
    for table in ("outcomes", "perplexity"):
        assert rows_of(home, table) == rows_of(tmp_path / "whole", table)
    assert [row["sha256"] for row in rows_of(home, "checkpoints")] == [
        row["sha256"] for row in rows_of(tmp_path / "whole", "checkpoints")
    ]


@pytest.mark.slow
def test_a_run_that_is_stopped_together_with_its_server_stops(
    warm_process: WarmProcess, tiny_model: Path, tmp_path: Path
) -> None:
    """As `systemctl stop` and Ctrl-C do: every process of the group is told."""
    plain = configuration(tmp_path, tiny_model)
    more = {"methods": plain["methods"][1:], "edit_counts": [1, 12], "turn_size": 1}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(configuration(tmp_path / "home", tiny_model, **more)))
    settings = server_settings(tmp_path / "prefect") | {"PREFECT_CLIENT_MAX_RETRIES": "0"}
    run = warm_process.run(
        COMMAND, "run", str(tmp_path / "run.yaml"), environment=os.environ | settings, log=tmp_path / "log.txt"
    )
    wait_for(tmp_path / "home" / "runs" / "r" / "ft-m" / "order-0" / "00000001" / "checkpoint.json", run)
    kill_server_of(run.pid)
    os.kill(run.pid, signal.SIGTERM)
    assert run.wait(timeout=120) == 130, run.said()[-3000:]
    said = run.said()
    assert "the same command continues" in said
    assert "the run goes on without it" not in said


def test_progress_that_cannot_be_told_is_told_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def refused(**_: Any) -> None:
        asked.append(1)
        raise httpx.ConnectError("Connection refused")

    monkeypatch.setattr(task_runs, "create_progress_artifact", refused)
    artifact = task_runs._ProgressArtifact("progress-r")
    for percent in (1.0, 2.0, 3.0):
        artifact(percent, "edits")
    assert asked == [1]
    assert caplog.text.count("does not answer") == 1
