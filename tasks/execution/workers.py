"""What runs in a worker's process: an editor or an engine, which reads its own requests and answers with an outcome.

Nothing here knows Ray: a worker is an ordinary object, which Ray makes an actor of (`cluster.py`).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch

from overedit.editing.methods.base import Progress
from overedit.editing.storage.disk_space import NoSpaceError
from overedit.editing.trajectory.interruption import StoppedError
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DatasetOptions
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.durability.derive import Derived, Settings, Step, derive_all
from overedit.tasks.editing_job.job import EditingJob, Prepared, run_editing_job
from overedit.tasks.engine.lazy import EngineStart, LazyEngine
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.capability.task_loading import TaskLoader
from overedit.tasks.evaluation.evaluator import measure
from overedit.tasks.evaluation.measured import MeasuredCheckpoint
from overedit.tasks.evaluation.options import MeasureOptions
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.runs.completion import own_files_digest
from overedit.tasks.runs.records import store_checkpoints
from overedit.tasks.runs.run import FileLog, TrajectoryPoint
from overedit.tasks.system.gpu_locks import NO_CLAIMS, lock_one_gpu, visible_gpus
from overedit.tasks.system.locks import file_lock
from overedit.tasks.system.packages import versions
from overedit.tasks.system.progress import now_and_then
from overedit.tasks.system.stage_key import SourceIndex
from overedit.tasks.system.untrusted import one_line

FAILURES: dict[str, type[BaseException]] = {
    kind.__name__: kind for kind in (StoppedError, NoSpaceError, OSError, ValueError, MemoryError, RuntimeError)
}
"""The kinds of errors that a unit may end with, a narrower one before a wider one."""

Message: TypeAlias = tuple[Literal["log"], str, int, str] | tuple[Literal["progress"], str, str, int, int]
"""A line of the log (logger, level, text), or progress (title, unit, done, total)."""


class Requests(NamedTuple):
    """Requests that a worker reads anew, instead of being sent a million of them."""

    dataset: DatasetOptions
    length: int
    """The first so many of them."""
    digest: str
    """Of those, as the run has read them."""


class Outcome(NamedTuple):
    """What became of a unit."""

    files: FileLog
    """The files of rows that it made or took over, also if it failed."""
    value: Any = None
    failure: str | None = None
    """The kind of its error: a name in FAILURES."""
    message: str = ""
    """The error's text; of a failure that is a result, its type and text on one line."""
    starts: Sequence[EngineStart] = ()
    """The engines that it started."""


class Setting(NamedTuple):
    """What a worker is given when it starts."""

    folder: str
    """The working folder of the run: relative paths of its configuration start there."""
    threads: int
    """Torch threads where it has no GPU."""
    gpus: float
    """Its GPUs; of a share of one, other processes have the rest."""


def own_process(setting: Setting, messages: deque[Message]) -> ExitStack:
    """Make the whole process a worker's; gives the locks of its GPUs."""
    os.chdir(setting.folder)
    logging.basicConfig(level=logging.INFO, handlers=[_Collector(messages)], force=True)
    locks = ExitStack()
    if setting.gpus % 1:
        os.environ[NO_CLAIMS] = "1"
    for uuid in visible_gpus() if setting.gpus >= 1 else ():
        locks.enter_context(lock_one_gpu([uuid]))
    return locks


class Worker:
    """What editors and engines have in common.

    Args:
        setting: What it is given.
    """

    def __init__(self, setting: Setting) -> None:
        self._threads = setting.threads
        self._messages: deque[Message] = deque()
        self._gpu = own_process(setting, self._messages)
        self._stop = threading.Event()
        self._sources = SourceIndex()
        self._stores: dict[tuple[str, int], RequestStore] = {}

    def about(self) -> tuple[str, str, dict[str, str]]:
        """Where it is, the digest of Overedit's files there, and the versions of the packages."""
        return socket.gethostname(), own_files_digest(), versions()

    def heard(self) -> list[Message]:
        """The messages since the last call."""
        return [self._messages.popleft() for _ in range(len(self._messages))]

    def stop(self) -> None:
        """Ask for a stop after the present turn."""
        self._stop.set()

    @contextmanager
    def _show(self, title: str, unit: str) -> Iterator[Progress]:
        yield now_and_then(lambda done, total: self._messages.append(("progress", title, unit, done, total)))

    def _requests(self, wanted: Requests) -> RequestStore:
        """The requests, read once.

        Raises:
            ValueError: They are others than those that the run has read.
        """
        key = (wanted.dataset.model_dump_json(), wanted.length)
        if key not in self._stores:
            self._stores[key] = load_requests(wanted.dataset).requests.first(wanted.length)
        found = self._stores[key]
        if found.digest != wanted.digest:
            raise ValueError(f"dataset: {socket.gethostname()} reads other edits than the run has; share the files")
        return found

    def _outcome(self, files: FileLog, work: Callable[[], Any], starts: list[EngineStart] | None = None) -> Outcome:
        """Do a unit; an error that may happen to any unit is its outcome, and others end the worker's call."""
        if not torch.cuda.is_available():
            torch.set_num_threads(self._threads)
        try:
            found = Outcome(files, work())
        except tuple(FAILURES.values()) as error:
            kind = next(name for name, kind in FAILURES.items() if isinstance(error, kind))
            is_result = kind in ("RuntimeError", "MemoryError")
            found = Outcome(files, None, kind, one_line(error) if is_result else str(error))
        if starts:
            found = found._replace(starts=tuple(starts))
            starts.clear()
        return found


class Editor(Worker):
    """Edits; it keeps the model in memory from one unit to the next."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._prepared = Prepared()

    def edit(
        self,
        job: EditingJob,
        wanted: Requests,
        folder: Path,
        point: TrajectoryPoint,
        *,
        title: str,
        continues: bool,
    ) -> Outcome:
        """Edit up to the job's last edit count, and store what is known of the checkpoints; gives their counts.

        The lock is for a worker that was given up and is not quite dead.
        """

        def work() -> list[int]:
            with file_lock(folder / "lock", f"trajectory {folder.parent.name}", wait=True):
                checkpoints = run_editing_job(
                    job,
                    self._requests(wanted),
                    folder,
                    show=self._show,
                    title=title,
                    threads=self._threads,
                    stop_asked=self._stop.is_set,
                    sources=self._sources,
                    continues=continues,
                    prepared=self._prepared,
                )
            return store_checkpoints(point, checkpoints)

        return self._outcome(point.run.files, work)

    def derive(self, steps: Sequence[Step], settings: Settings) -> Outcome:
        """Make the checkpoints after one more step; gives what became of them."""
        self._prepared.clear()

        def work() -> Derived:
            return derive_all(steps, settings, sources=self._sources, show=self._show, threads=self._threads)

        return self._outcome(FileLog(), work)


class Measurer(Worker):
    """Measures checkpoints with an engine of its own, which is started when it is first needed."""

    def __init__(
        self, setting: Setting, model: ModelReference, options: EngineOptions, capability: CapabilityOptions
    ) -> None:
        super().__init__(setting)
        self._engine = LazyEngine(model, options)
        self._loader = TaskLoader(capability)

    def measure(self, measured: Mapping[str, Any], wanted: Requests, options: MeasureOptions) -> Outcome:
        """Measure a checkpoint and store the rows.

        Args:
            measured: The fields of a `MeasuredCheckpoint`, without `requests` and `sources`.
            wanted: Its requests.
            options: What is measured.
        """

        def work() -> None:
            requests = self._requests(wanted)
            one = MeasuredCheckpoint(**measured, requests=requests, sources=self._sources)
            measure(one, options, engine=self._engine, show=self._show, loader=self._loader)

        return self._outcome(measured["point"].run.files, work, self._engine.starts)


class _Collector(logging.Handler):
    """Keeps what is logged: Overedit's lines, and the warnings of other packages."""

    def __init__(self, messages: deque[Message]) -> None:
        super().__init__()
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("overedit.") or record.levelno >= logging.WARNING:
            self._messages.append(("log", record.name, record.levelno, record.getMessage()))
