"""A cluster in this process: real editors and engines, whose calls travel by pickle as they do with Ray."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any, Self

import pytest
from ray import cloudpickle

from overedit.flows import many_devices
from overedit.tasks.execution import workers
from overedit.tasks.execution.cluster import EDITOR, ENGINE, RemoteWorker, _Shown
from overedit.tasks.execution.options import RayExecution
from overedit.tasks.execution.scheduler import WorkerLostError
from overedit.tasks.execution.workers import Editor, Measurer, Setting
from overedit.tasks.runs.run import FileLog
from overedit.tasks.system.progress import ShowProgress


class FakeCluster:
    """Has the interface of `Cluster`.

    Args:
        options: How many workers.
        engine: The further arguments of `Measurer`.
        files: Gets the files that workers make.
    """

    def __init__(self, options: RayExecution, *, engine: tuple[Any, ...], files: FileLog) -> None:
        self.files, self.starts = files, list[Any]()
        self.sizes = {EDITOR: options.editors, ENGINE: options.engines}
        self.arguments = engine
        self.lock = threading.Lock()
        """One thread at a time: transformers loads models with changes to torch that others would see."""
        self.calls: list[str] = []
        self.loses_each = False
        """Whether the first answer about each unit is lost."""
        self.lost: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def start(self, kind: str) -> FakeRemoteWorker:
        with self.lock:
            setting = Setting(".", 1, 0.0)
            made = Editor(setting) if kind == EDITOR else Measurer(setting, *travelled(self.arguments))
        return FakeRemoteWorker(made, self)


class FakeRemoteWorker(RemoteWorker):
    """A worker in this process."""

    def __init__(self, worker: Editor | Measurer, cluster: Any) -> None:
        self._worker, self._cluster = worker, cluster
        self._stopped = threading.Event()

    def is_ready(self) -> bool:
        return True

    def ask_to_stop(self) -> None:
        self._worker.stop()

    def end(self) -> None:
        self._stopped.set()

    def call(self, method: str, *arguments: Any, show: ShowProgress, **more: Any) -> Any:
        cluster = self._cluster
        with cluster.lock, _Shown(show) as shown:
            cluster.calls.append(method)
            outcome = travelled(getattr(self._worker, method)(*travelled(arguments), **travelled(more)))
            shown.take(self._worker.heard())
        unit = f"{method} {_unit(method, arguments)}"
        if cluster.loses_each and unit not in cluster.lost:  # at the worst time: all is done
            cluster.lost.add(unit)
            raise WorkerLostError("its worker was lost: killed")
        return self._value(outcome)


def _unit(method: str, arguments: tuple[Any, ...]) -> Any:
    if method == "edit":
        job, _, folder, _ = arguments
        return folder, job.edit_counts
    return arguments[0]["point"].partition if method == "measure" else ""


def travelled(what: Any) -> Any:
    """What arrives where it is sent."""
    return cloudpickle.loads(cloudpickle.dumps(what))


def use_fake_clusters(monkeypatch: pytest.MonkeyPatch, *, loses_each: bool = False) -> list[FakeCluster]:
    """Put fake clusters in the place of Ray; gives those that are made."""
    made: list[FakeCluster] = []

    def cluster(*arguments: Any, **more: Any) -> FakeCluster:
        made.append(FakeCluster(*arguments, **more))
        made[-1].loses_each = loses_each
        return made[-1]

    monkeypatch.setattr(many_devices, "Cluster", cluster)
    monkeypatch.setattr(workers, "own_process", lambda setting, messages: ExitStack())
    return made
