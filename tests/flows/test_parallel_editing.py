"""Trajectories edited at once, in real processes: the same bits, and nothing lost however a process ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from overedit.editing.methods.base import Progress
from overedit.editing.trajectory.checkpoint import DamagedCheckpointError
from overedit.editing.trajectory.interruption import StoppedError
from overedit.flows.benchmark import run_plan
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.config.run_identity import write_configuration
from overedit.flows.plan import Plan, make_plan
from overedit.tasks.editing_job.job import run_editing_job
from overedit.tasks.editing_job.parallel import QueuedJob, _edit, edit_in_processes
from tests.support.benchmark_run import configuration
from tests.support.warm_process import ForkedProcess, WarmProcess

METHODS = [
    {"method": "locft_bf", "site": "1.down_proj", "epochs": 3},
    {"method": "ft_m", "site": "1.down_proj", "max_steps": 20, "stop_below": 0.0},
]


def plan_in(home: Path, tiny_model: Path, **more: Any) -> Plan:
    return make_plan(BenchmarkConfig.model_validate(configuration(home, tiny_model, methods=METHODS) | more))


def edited_one_after_another(plan: Plan) -> Plan:
    for trajectory in plan.config.trajectories():
        run_editing_job(
            trajectory.job, plan.planned(trajectory.order_seed), plan.checkpoints_folder(trajectory), threads=1
        )
    return plan


def queued_jobs(plan: Plan) -> list[QueuedJob]:
    return plan.queued_jobs({trajectory: trajectory.job for trajectory in plan.config.trajectories()})


def kept(plan: Plan) -> dict[str, bytes]:
    """Everything that the trajectories left, but what it cost."""
    return {
        str(path.relative_to(plan.run.folder)): path.read_bytes()
        for path in sorted(plan.run.folder.rglob("*"))
        if path.is_file() and path.name not in ("costs.json", "run.json")
    }


@pytest.fixture
def children_begin_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are forked from a process that has imported what they need, in place of importing it anew each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.warm_flows"])
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)


@pytest.mark.slow
@pytest.mark.usefixtures("children_begin_at_once")
def test_two_at_once_leave_the_bits_of_one_after_another(tiny_model: Path, tmp_path: Path) -> None:
    at_once = plan_in(tmp_path / "at-once", tiny_model, trajectories_at_once=2)
    open_now, most, counts = set[str](), [0], dict[str, int]()

    @contextmanager
    def show(title: str, unit: str) -> Iterator[Progress]:
        open_now.add(title)
        most.append(len(open_now))
        yield lambda done, total: counts.update({title: done})
        open_now.remove(title)

    assert edit_in_processes(queued_jobs(at_once), 2, show=show) == {}
    assert max(most) == 2, "they were edited at the same time"
    assert counts == {"Editing with LocFT-BF": 12, "Editing with FT-M": 12}
    there = kept(at_once)
    assert sum(name.endswith("weights.safetensors") for name in there) == 6
    assert there == kept(edited_one_after_another(plan_in(tmp_path / "one-by-one", tiny_model)))
    assert multiprocessing.active_children() == []
    before = {path: path.stat().st_mtime_ns for path in at_once.run.folder.rglob("*")}
    assert (
        edit_in_processes(queued_jobs(at_once), 2, show=lambda *_: pytest.fail("what is there is edited again")) == {}
    )
    assert {path: path.stat().st_mtime_ns for path in at_once.run.folder.rglob("*")} == before


@pytest.mark.slow
@pytest.mark.usefixtures("children_begin_at_once")
def test_a_process_that_is_killed_is_one_trajectory_that_failed(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run measures the other, records why this one failed, and says so at its end."""
    plan = plan_in(tmp_path, tiny_model, trajectories_at_once=2)
    first, second = plan.config.trajectories()

    @contextmanager
    def show(title: str, unit: str) -> Iterator[Progress]:
        if first.label in title:
            begun_first = min(multiprocessing.active_children(), key=lambda process: int(process.name.split("-")[1]))
            assert begun_first.pid is not None
            os.kill(begun_first.pid, signal.SIGKILL)
        yield lambda done, total: None

    monkeypatch.setattr("overedit.tasks.editing_job.task.shown_in_flow", lambda run, lines=False: show)
    why = "RuntimeError: its process was ended by SIGKILL, as the system does where memory runs out"
    with pytest.raises(RuntimeError, match=f"^LocFT-BF failed: {why}$"):
        run_plan(plan)
    query = plan.run.warehouse.query
    ended = query("SELECT label, status, error FROM runs ORDER BY label").to_pylist()
    assert ended == [
        {"label": second.label, "status": "completed", "error": None},
        {"label": first.label, "status": "failed", "error": why},
    ]
    measured = query("SELECT DISTINCT edit_count FROM outcomes WHERE method = 'ft_m' ORDER BY ALL").to_pydict()
    assert measured == {"edit_count": [1, 4, 12]}


@pytest.mark.parametrize(
    ("error", "comes_over"),
    [
        (RuntimeError("no\nsolution"), RuntimeError("RuntimeError: no solution")),
        (MemoryError("2 GB"), RuntimeError("MemoryError: 2 GB")),
        (DamagedCheckpointError("torn"), ValueError("torn")),
        (FileNotFoundError(2, "no such file", "a"), OSError("[Errno 2] no such file: 'a'")),
        (StoppedError("as asked"), None),
    ],
)
def test_errors_come_over_as_what_they_are(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, comes_over: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("overedit.tasks.editing_job.parallel.run_editing_job", fail)
    monkeypatch.setattr("overedit.tasks.editing_job.parallel._end_with_parent", lambda: None)
    mine, theirs = multiprocessing.Pipe()
    queued = queued_jobs(plan_in(tmp_path, tiny_model))[0]
    _edit(queued.job, queued.dataset, queued.folder, queued.title, False, 1, theirs)
    said = mine.recv() if mine.poll() else None
    assert (type(said), str(said)) == (type(comes_over), str(comes_over))


PARENT = """
import json, sys
from overedit.flows.config.models import BenchmarkConfig
from overedit.tasks.editing_job.parallel import edit_in_processes
from overedit.flows.plan import make_plan
from overedit.tasks.system.progress import unseen
if __name__ == "__main__":
    plan = make_plan(BenchmarkConfig.model_validate(json.loads(sys.argv[1])))
    jobs = plan.queued_jobs({one: one.job for one in plan.config.trajectories()})
    print(edit_in_processes(jobs, 2, show=unseen))
"""


def begun(warm_process: WarmProcess, config: dict[str, Any], at: str) -> ForkedProcess:
    """A parent with its children, of whom each has come to a file like `at`."""
    home = Path(config["home"])
    process = warm_process.run(PARENT, json.dumps(config), log=home / "log.txt")
    deadline = time.monotonic() + 240
    while len(list(home.glob(at))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, process.said()
        time.sleep(0.005)
    return process


def descendants(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [one for child in children for one in descendants(child)]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_kill_of_the_parent_and_a_stop_reach_the_children(
    warm_process: WarmProcess, tiny_model: Path, tmp_path: Path
) -> None:
    """Kill -9 of the parent: none goes on. SIGTERM, to the children too: each keeps its last turn. Same bits."""
    same = {"method": "ft_m", "site": "1.down_proj", "max_steps": 200, "stop_below": 0.0}
    slow = [same, same | {"learning_rate": 4e-4}]
    more = {"methods": slow, "turn_size": 1, "edit_counts": [1, 12], "trajectories_at_once": 2}
    config = configuration(tmp_path / "stopped", tiny_model, **more)
    killed = begun(warm_process, config, "runs/r/*/order-0/00000001")
    children = descendants(killed.pid)
    assert len(children) >= 2
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while any(map(is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_alive, children)), "nobody goes on editing"
    assert not list((tmp_path / "stopped").rglob("line")), "nor to the end of the turn, which may take hours"
    assert len(list((tmp_path / "stopped").rglob("00000012"))) < 2, "it was killed before the end"

    @contextmanager
    def show(title: str, unit: str) -> Iterator[Progress]:
        yield lambda done, _: signal_all() if done > 1 else None

    def signal_all() -> None:
        processes = multiprocessing.active_children()
        if signals:
            os.kill(signals.pop(), signal.SIGTERM)
            for process in processes:
                process.terminate()

    signals = [os.getpid()]
    plan = make_plan(BenchmarkConfig.model_validate(config))
    with pytest.raises(StoppedError, match="stopped after the turns that were going on, as asked"):
        edit_in_processes(queued_jobs(plan), 2, show=show)
    records = [json.loads(path.read_text()) for path in (tmp_path / "stopped").rglob("line/*/checkpoint.json")]
    assert records, "what lay between two counts is kept"
    assert all(1 < record["edit_count"] < 12 for record in records)
    edited_one_after_another(plan)
    whole = edited_one_after_another(plan_in(tmp_path / "whole", tiny_model, **more))
    assert {name: content for name, content in kept(plan).items() if ".tmp/" not in name} == kept(whole)


def test_the_number_at_once_is_no_other_configuration(tiny_model: Path, tmp_path: Path) -> None:
    plan = plan_in(tmp_path, tiny_model)
    write_configuration(plan.run, plan.config)
    plan_in(tmp_path, tiny_model, trajectories_at_once=3)
    with pytest.raises(ValueError, match="turn_size: was 4, is now 5"):
        plan_in(tmp_path, tiny_model, trajectories_at_once=3, turn_size=5)
