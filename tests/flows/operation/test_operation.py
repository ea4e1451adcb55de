"""Scheduled and hand-started runs in the locked environment: real server, real deployments, real worker."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.operation import Operation, Webhook, free_port, until
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.slow
in_full = pytest.mark.skipif("OVEREDIT_OPERATION" not in os.environ, reason="half a minute each: make operation")


@pytest.fixture(scope="module")
def by_hand(operation: Operation) -> str:
    """The nightly deployment, started by hand with a smaller configuration and other values."""
    return operation.run("benchmark/nightly", config="c.yaml", name="By.Hand_1", methods=["ft_m"], edit_counts=[1, 2])


@pytest.fixture(scope="module")
def failing(operation: Operation) -> str:
    return operation.run("benchmark/benchmark", config="absent.yaml")


def rows(operation: Operation, run: str) -> list[Any]:
    query = f"SELECT DISTINCT edit_count FROM outcomes WHERE run = '{run}' AND edit_count > 0 ORDER BY ALL"
    return Warehouse(operation.home / "warehouse").query(query)["edit_count"].to_pylist()


def test_a_schedule_fires_within_two_minutes_and_the_worker_completes_the_run(operation: Operation) -> None:
    """It is the first test, so that no other run is in the queue of the worker."""
    due = operation.scheduled("benchmark/benchmark", config="c.yaml", name="due", edit_counts=[1, 2], limit=2)
    ended = operation.ended(due["id"])
    assert ended["state_type"] == "COMPLETED", ended["state"]
    assert rows(operation, "due") == [1, 2]
    assert any("asked for: schedule of benchmark/benchmark" in line["message"] for line in operation.logs(due["id"]))


@in_full
def test_a_deployment_that_is_started_by_hand_completes(operation: Operation, by_hand: str) -> None:
    ended = operation.ended(by_hand)
    assert ended["state_type"] == "COMPLETED", ended["state"]
    assert rows(operation, "By.Hand_1") == [1, 2]
    assert set(ended["tags"]) == {"overedit", "nightly", "model:tiny-model0", "dataset:file", "method:ft_m"}


@in_full
def test_overedits_lines_are_logs_of_the_flow_run(operation: Operation, by_hand: str) -> None:
    operation.ended(by_hand)
    lines = until(
        lambda: [line for line in operation.logs(by_hand) if line["name"].startswith("overedit.")] or None,
        seconds=120,
        what="Overedit's lines arrive",
    )
    asked = f"results are in {operation.home}; asked for: by hand in Prefect, deployment benchmark/nightly"
    assert asked in [line["message"] for line in lines]


@in_full
def test_the_report_opens_by_the_link_of_the_runs_own_artifact(operation: Operation, by_hand: str) -> None:
    operation.ended(by_hand)
    found = operation.ask("POST", "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [by_hand]}}})
    keys = {artifact["key"].split("-by-hand-1-")[0]: artifact for artifact in found if artifact["key"]}
    assert {"leaderboard", "progress", "report"} <= set(keys)
    link = keys["report"]["data"].partition("](")[2].rstrip(")")
    assert link == f"http://127.0.0.1:{operation.reports_port}/reports/By.Hand_1.html"
    page = httpx.get(link)
    assert page.text == (operation.home / "reports" / "By.Hand_1.html").read_text()
    for outside in ("warehouse/warehouse.duckdb", "reports/%2e%2e/warehouse/warehouse.duckdb", "c.yaml", "runs/"):
        assert httpx.get(f"http://127.0.0.1:{operation.reports_port}/{outside}").status_code == 404


@in_full
def test_a_run_that_fails_notifies_the_webhook(operation: Operation, failing: str, webhook: Webhook) -> None:
    assert operation.ended(failing)["state_type"] == "FAILED"
    until(lambda: webhook.told or None, seconds=120, what="the webhook is told")
    told = next(one for one in webhook.told if "absent.yaml" in one["subject"])
    assert told["subject"] == "Overedit: absent.yaml: Failed"
    assert "absent.yaml" in told["body"].splitlines()[0]
    assert failing in told["body"], "a link to the flow run"


ANNOUNCE = """
from prefect import flow, runtime
from prefect.events import emit_event
from overedit.flows.end_state import MOVED_EVENT

@flow
def gated():
    payload = {"verdict": "3 numbers moved", "text": "reliability of FT-M at 100 edits: 0.59 -> 0.06"}
    emit_event(MOVED_EVENT, {"prefect.resource.id": f"prefect.flow-run.{runtime.flow_run.id}"}, payload=payload)

gated()
"""


@in_full
def test_numbers_that_moved_notify_the_webhook(operation: Operation, webhook: Webhook) -> None:
    done = subprocess.run([sys.executable, "-c", ANNOUNCE], env=operation.environment, cwd=REPOSITORY, timeout=120)
    assert done.returncode == 0
    told = until(
        lambda: next((one for one in webhook.told if "numbers moved" in one["subject"]), None),
        seconds=120,
        what="the webhook is told",
    )
    assert told["subject"].endswith(": 3 numbers moved")
    assert told["body"].startswith("reliability of FT-M at 100 edits: 0.59 -> 0.06\nhttp://127.0.0.1:")


@pytest.mark.parametrize(
    ("parameters", "accepted"),
    [
        ({}, True),
        ({"methods": ["memit", "ultraedit"], "edit_counts": [1], "model": "/models/mine", "limit": 10}, True),
        ({"settings": {"dataset.path": "/data/rows.json", "turn_size": 10}, "dataset": "file"}, True),
        ({"methods": ["nonsense"]}, False),
        ({"edit_counts": ["many"]}, False),
    ],
)
@pytest.mark.parametrize("deployment", ["nightly", "weekly", "benchmark"])
def test_the_schema_accepts_what_the_form_gives(
    operation: Operation, deployment: str, parameters: dict[str, Any], accepted: bool
) -> None:
    path = f"/deployments/{operation.deployment(f'benchmark/{deployment}')['id']}/create_flow_run"
    later = {"type": "SCHEDULED", "state_details": {"scheduled_time": "2099-01-01T00:00:00Z"}}
    body = {"parameters": parameters, "state": later, "enforce_parameter_schema": True}
    answer = operation.answer("POST", path, body)
    assert answer.is_success == accepted, answer.text
    if accepted:
        operation.ask("DELETE", f"/flow_runs/{answer.json()['id']}")


def registered(operation: Operation) -> dict[str, Any]:
    """What is registered -> names and ids."""
    return {
        "deployments": {
            (each["name"], each["id"], tuple(one["slug"] for one in each["schedules"] if one["slug"]))
            for each in operation.ask("POST", "/deployments/filter", {})
        },
        "automations": {(each["name"], each["id"]) for each in operation.ask("POST", "/automations/filter", {})},
        "work pools": {(each["name"], each["id"]) for each in operation.ask("POST", "/work_pools/filter", {})},
        "blocks": {(each["name"], each["id"]) for each in operation.ask("POST", "/block_documents/filter", {})},
    }


@in_full
def test_deploying_again_makes_no_duplicates(operation: Operation, webhook: Webhook) -> None:
    before = registered(operation)
    done = operation.overedit("deploy", "--webhook", webhook.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert registered(operation) == before
    names = [name for name, _ in before["automations"]]
    assert sorted(names) == ["overedit-dead-runs", "overedit-failed-runs", "overedit-moved-numbers"]
    assert len(before["deployments"]) == 4


def test_errors_of_the_scheduler_are_shown(operation: Operation) -> None:
    """It fails when it inserts flow runs, as it did with SQLAlchemy 2.1; here because the database refuses them."""
    path = f"/deployments/{operation.deployment('scan/scan')['id']}/schedules"
    file = operation.folder / "prefect" / "prefect.db"
    refuse = "SELECT RAISE(ABORT, 'refused by a test')"
    trigger = f"CREATE TRIGGER refuse BEFORE INSERT ON flow_run WHEN NEW.auto_scheduled BEGIN {refuse}; END"
    with sqlite3.connect(file, timeout=60) as database:
        database.execute(trigger)
    (made,) = operation.ask("POST", path, [{"active": True, "schedule": {"interval": 86_400}}])
    try:
        until(lambda: "refused by a test" in operation.said("ui") or None, seconds=90, what="the scheduler's error")
    finally:
        with sqlite3.connect(file, timeout=60) as database:
            database.execute("DROP TRIGGER refuse")
        operation.ask("DELETE", f"{path}/{made['id']}")
    assert re.search(r"ERROR .*schedule_\w*deployments", operation.said("ui"))
    assert "mark_deployments_ready" not in operation.said("ui"), "what Prefect logs at every poll"


@pytest.mark.parametrize("arguments", [("worker",), ("deploy",)])
def test_without_a_server_the_error_says_how_to_start_one(operation: Operation, arguments: tuple[str, ...]) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/api"
    done = operation.overedit(*arguments, PREFECT_API_URL=nowhere, OVEREDIT_HOME=str(operation.folder / "other"))
    assert done.returncode == 1
    assert f"no Prefect server answers at {nowhere}" in done.stderr
    assert "overedit ui" in done.stderr
    assert "Traceback" not in done.stderr


def listening(process: int) -> set[str]:
    """The addresses on which a process and its children listen, as /proc writes them."""
    inodes = set()
    for pid in (
        process,
        *(int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()),
    ):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            inodes |= {descriptor.readlink().name} if descriptor.is_symlink() else set()
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


def test_the_servers_listen_on_loopback_and_both_stop_on_request(operation: Operation) -> None:
    """The tests' own server is needed further: this is another, which is asked before it has started."""
    addresses = listening(operation.processes["ui"].pid)
    assert len(addresses) == 2
    assert {address.partition(":")[0] for address in addresses} == {"0100007F"}
    port = free_port()
    operation.start(
        "another", "ui", "--home", str(operation.home), "--port", str(free_port()), "--reports-port", str(port)
    )
    until(lambda: _answers(port), seconds=60, what="the reports are served")
    assert operation.stop("another", signal.SIGINT) in (0, 130, 143)
    assert _answers(port) is None


def _answers(port: int) -> bool | None:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/").is_success
    except httpx.HTTPError:
        return None
