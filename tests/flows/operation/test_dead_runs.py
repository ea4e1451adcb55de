"""A worker and its flow process are killed: the run is marked as crashed, and the next one runs. Takes two minutes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.operation import Operation, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("OVEREDIT_OPERATION" not in os.environ, reason="takes minutes: make operation"),
]


def children(process: int) -> Iterator[int]:
    """The processes below a process."""
    for child in map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()):
        yield child
        yield from children(child)


def events(operation: Operation, name: str, **resource: list[str]) -> int:
    """How many events of a name there were, of any resource if none is given."""
    body = {"filter": {"event": {"name": [name]}, **({"resource": resource} if resource else {})}}
    return int(operation.ask("POST", "/events/filter", body)["total"])


def heartbeats(operation: Operation, identifier: str) -> int:
    return events(operation, "prefect.flow-run.heartbeat", id=[f"prefect.flow-run.{identifier}"])


def test_a_killed_run_is_marked_within_two_minutes_and_the_next_completes(operation: Operation) -> None:
    short = operation.run("benchmark/nightly", config="c.yaml", name="short", edit_counts=[1], limit=1)
    assert operation.ended(short)["state_type"] == "COMPLETED"
    operation.stop("worker")
    operation.start_worker("doomed")
    many = {"methods.0.max_steps": 100_000, "turn_size": 1}
    doomed = operation.run("benchmark/benchmark", config="c.yaml", name="doomed", edit_counts=[20], settings=many)
    until(lambda: heartbeats(operation, doomed) or None, seconds=120, what="the run's heartbeat")
    worker = operation.processes["doomed"]
    processes = list(children(worker.pid))
    assert processes, "the flow runs in a process of its own"
    for process in (worker.pid, *processes):
        os.kill(process, signal.SIGKILL)
    killed = time.monotonic()
    assert operation.flow_run(doomed)["state_type"] == "RUNNING"
    waiting = operation.run("benchmark/benchmark", config="c.yaml", name="next", edit_counts=[1], limit=1)
    operation.start_worker("worker")
    ended = operation.ended(doomed, seconds=120)
    print(f"marked {time.monotonic() - killed:.0f} s after the kill")
    assert (ended["state_type"], ended["state_name"]) == ("CRASHED", "Dead")
    assert "heartbeat" in ended["state"]["message"]
    assert operation.ended(waiting)["state_type"] == "COMPLETED"
    print(f"the next run had completed {time.monotonic() - killed:.0f} s after the kill")
    assert events(operation, "prefect.automation.action.failed") == 0, "no run that had ended was to be marked"
