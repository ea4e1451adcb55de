"""Ray: connecting to a cluster, and workers of a run as Ray's actors. The only file that imports Ray.

Ray repeats nothing by itself (`max_restarts=0`, `max_task_retries=0`): a restarted actor would have lost its model and
its weights, so the scheduler starts a new one and gives it the unit again, a limited number of times.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from overedit.editing.methods.base import Progress
from overedit.tasks.engine.lazy import EngineStart
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.execution.options import RayExecution, check_installed
from overedit.tasks.execution.scheduler import FailedError, WorkerLostError
from overedit.tasks.execution.workers import FAILURES, Editor, Measurer, Message, Outcome, Setting
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.runs.completion import own_files_digest
from overedit.tasks.runs.run import FileLog
from overedit.tasks.system.packages import versions
from overedit.tasks.system.progress import ShowProgress
from overedit.tasks.system.untrusted import error_message

logger = logging.getLogger(__name__)

EDITOR, ENGINE = "editing", "measuring"
"""The kinds of workers."""
SECONDS_BETWEEN_LOOKS = 0.5
_TALK = "talk"  # the thread of an actor that answers while another one works
_STARTS_OF_RAY = 3


class Cluster:
    """Ray for the time of a run.

    Args:
        options: Where Ray is, and how many workers there are.
        engine: The further arguments of `Measurer`: the model, the engine's options, and those of the benchmarks.
        files: Gets the files of rows that workers make or take over.
    """

    def __init__(
        self, options: RayExecution, *, engine: tuple[ModelReference, EngineOptions, CapabilityOptions], files: FileLog
    ) -> None:
        check_installed()
        self._split = engine[1].workers
        """GPUs over which vLLM splits one engine."""
        self._options, self._engine, self.files = options, engine, files
        self.starts: list[EngineStart] = []
        self.sizes = {EDITOR: options.editors, ENGINE: options.engines}
        self._connection = ExitStack()
        self._resources: dict[str, dict[str, float]]

    def __enter__(self) -> Self:
        """Connect to Ray.

        Raises:
            ValueError: Not one worker of each kind fits into the cluster.
            RuntimeError: There is no Ray at the address, or it cannot be started.
        """
        import ray

        if not ray.is_initialized():
            own = self._options.address == "local"
            more = {"include_dashboard": False} if own else {}
            with _own_signals():
                _initialized(address=self._options.address, log_to_driver=False, logging_level=logging.WARNING, **more)
            self._connection.callback(ray.shutdown)
        try:
            self._resources = self._needed(ray.cluster_resources())
        except ValueError:
            self._connection.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def start(self, kind: str) -> RemoteWorker:
        """Start a worker without waiting for it."""
        import ray

        needed = self._resources[kind]
        setting = Setting(str(Path.cwd()), max(1, int(needed["num_cpus"])), needed["num_gpus"])
        cls, arguments = (Editor, ()) if kind == EDITOR else (Measurer, self._engine)
        made = ray.remote(concurrency_groups={_TALK: 1})(cls).options(**needed, max_restarts=0, max_task_retries=0)
        return RemoteWorker(made.remote(setting, *arguments), self, keeps=kind == EDITOR)

    def _needed(self, there: dict[str, float]) -> dict[str, dict[str, float]]:
        """What each kind of worker needs."""
        options, usual = self._options, min(1.0, there.get("GPU", 0.0))
        gpus_e = usual if options.gpus_per_editor is None else options.gpus_per_editor
        gpus_m = usual * self._split if options.gpus_per_engine is None else options.gpus_per_engine
        needed = {
            EDITOR: {"num_cpus": float(options.cpus_per_editor), "num_gpus": gpus_e},
            ENGINE: {"num_cpus": float(options.cpus_per_engine), "num_gpus": gpus_m},
        }
        for name, resource in (("cpus", "CPU"), ("gpus", "GPU")):
            least = sum(each[f"num_{name}"] for each in needed.values())
            most = sum(each[f"num_{name}"] * self.sizes[kind] for kind, each in needed.items())
            has = there.get(resource, 0.0)
            sentence = f"{name}: one editor and one engine need {least:g}, all of them {most:g}; Ray has {has:g}"
            if has < least:
                keys = f"execution.{name}_per_editor, execution.{name}_per_engine"
                raise ValueError(f"{keys}: {sentence}" + ("; a share such as 0.5 is accepted" * (name == "gpus")))
            if has < most:
                logger.warning("execution: %s, so that some workers wait until it has more", sentence)
        return needed


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, which Ray would replace."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _initialized(**arguments: Any) -> None:
    """Connect to Ray, or start it; a start is repeated, since a busy machine may need longer than Ray waits.

    Raises:
        RuntimeError: There is no Ray at the address, or it cannot be started.
    """
    import ray

    for left in reversed(range(_STARTS_OF_RAY)):
        try:
            ray.init(**arguments)
            return
        except Exception as error:  # Ray raises no narrower one where a start takes too long
            ray.shutdown()
            reason = f"execution.address: {arguments['address']}: {error_message(error, 300)}"
            if "timed out during startup" not in str(error) or not left:
                raise RuntimeError(reason) from error
            logger.warning("%s; Ray is started again", reason)


class RemoteWorker:
    """A worker in a process of Ray's.

    Args:
        actor: Ray's handle.
        cluster: Gets what it makes.
        keeps: Whether it can stop in the middle of a unit and keep what it has.
    """

    def __init__(self, actor: Any, cluster: Cluster, *, keeps: bool) -> None:
        self._actor, self._cluster, self._keeps = actor, cluster, keeps
        self._about = self._talk("about")
        self._is_ended = threading.Event()

    def is_ready(self) -> bool:
        """Whether its process has started; see `Worker.is_ready`.

        Raises:
            WorkerLostError: It cannot start.
            RuntimeError: Its machine has another version of Overedit or of a package: numbers would differ.
        """
        import ray

        if not ray.wait([self._about], timeout=0)[0]:
            return False
        where, digest, packages = self._got(self._about)
        others = {name: version for name, version in packages.items() if versions().get(name) != version}
        if digest != own_files_digest() or others:
            differing = ", ".join(f"{name} {version}" for name, version in others.items()) or "Overedit's own files"
            raise RuntimeError(f"execution: {where} has other versions than this machine: {differing}")
        return True

    def ask_to_stop(self) -> None:
        """Ask it to end its unit after the present turn; one that keeps nothing of a unit is ended."""
        if self._keeps:
            self._talk("stop")
        else:
            self.end()

    def end(self) -> None:
        """End its process."""
        import ray

        self._is_ended.set()
        ray.kill(self._actor, no_restart=True)

    def call(self, method: str, *arguments: Any, show: ShowProgress, **more: Any) -> Any:
        """Do a unit, and show its progress and its log as if it were done here.

        Args:
            method: Of `Editor` or `Measurer`.
            arguments: Its arguments.
            show: Shows the progress.
            more: Its keyword arguments.

        Returns:
            The outcome's value.

        Raises:
            WorkerLostError: The process or its machine is gone.
            FailedError: The unit failed with a RuntimeError or MemoryError.
            StoppedError, ValueError, OSError: The unit ended so.
        """
        import ray

        result = getattr(self._actor, method).remote(*arguments, **more)
        with _Shown(show) as shown:
            while not ray.wait([result], timeout=SECONDS_BETWEEN_LOOKS)[0]:
                if self._is_ended.is_set():
                    raise WorkerLostError("it was ended")
                shown.take(self._got(self._talk("heard")))
            outcome: Outcome = self._got(result)
            shown.take(self._got(self._talk("heard")))
        return self._value(outcome)

    def _value(self, outcome: Outcome) -> Any:
        """The value of a unit, or its error raised; what it has made counts in both cases."""
        for path, table in outcome.files.shared.items():
            self._cluster.files.add("shared", path, table)
        for path, table in outcome.files.computed.items():
            self._cluster.files.add("computed", path, table)
        self._cluster.starts += outcome.starts
        if outcome.failure in ("RuntimeError", "MemoryError"):
            raise FailedError(outcome.message)
        if outcome.failure is not None:
            raise FAILURES[outcome.failure](outcome.message)
        return outcome.value

    def _talk(self, method: str) -> Any:
        return getattr(self._actor, method).options(concurrency_group=_TALK).remote()

    def _got(self, reference: Any) -> Any:
        import ray

        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError:  # an error of ours, not of Ray
            raise
        except ray.exceptions.RayError as error:
            raise WorkerLostError(f"its worker was lost: {error_message(error, 300)}") from error


class _Shown(ExitStack):
    """Shows a worker's messages: its log as this process's, and its progress."""

    def __init__(self, show: ShowProgress) -> None:
        super().__init__()
        self._show, self._title = show, ""
        self._advance: Progress

    def take(self, messages: list[Message]) -> None:
        """Show messages."""
        for message in messages:
            if message[0] == "log":
                _, name, level, text = message
                logging.getLogger(name).log(level, "%s", text)
                continue
            _, title, unit, done, total = message
            if title != self._title:
                self.close()
                self._title, self._advance = title, self.enter_context(self._show(title, unit))
            self._advance(done, total)
