"""Several trajectories at once, each edited in a process of its own.

A process makes its own plan from the configuration, edits one trajectory, and leaves its checkpoints where the run
expects them; whoever began it finds them there. It ends with its parent, whatever ended that: nothing goes on editing
in a run that nobody looks after.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from types import TracebackType
from typing import Self

from overedit.editing.method import Progress
from overedit.editing.trajectory.interruption import StoppedError, stop_on_signals
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.plan import Plan, Trajectory, make_plan
from overedit.tasks.editing_job.job import finished_checkpoints, run_editing_job
from overedit.tasks.models.loading import editing_threads
from overedit.tasks.system.progress import ShowProgress

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_REPORTS = 0.5


def edit_in_processes(plan: Plan, *, show: ShowProgress) -> dict[Trajectory, str]:
    """Edit the trajectories that are not finished, so many at once as the configuration says.

    Args:
        plan: The run.
        show: Shows the progress of each; several are shown at once.

    Returns:
        Why a trajectory failed, of those that did.

    Raises:
        StoppedError: SIGTERM or Ctrl-C came; each has kept what it had, and the same call continues.
        ValueError, OSError: One of them ended so, and the others were ended with it.
    """
    waiting = deque(_unfinished(plan))
    with stop_on_signals() as stop_asked, _Processes(plan, show) as processes:
        while waiting or processes.running:
            while waiting and len(processes.running) < plan.config.trajectories_at_once and not stop_asked():
                processes.begin(waiting.popleft())
            if stop_asked():
                waiting.clear()
                processes.ask_to_stop()
            processes.attend()
        if stop_asked():
            raise StoppedError("stopped after the turns that were going on, as asked")
        return processes.failed


def _unfinished(plan: Plan) -> Iterator[Trajectory]:
    for trajectory in plan.trajectories():
        key = trajectory.job.key(plan.planned(trajectory.order_seed))
        if not finished_checkpoints(trajectory.job, key, plan.checkpoints_folder(trajectory)):
            yield trajectory


class _Running:
    """A process that edits a trajectory, and what it has said."""

    def __init__(self, trajectory: Trajectory, process: BaseProcess, messages: Connection) -> None:
        self.trajectory, self.process, self.messages = trajectory, process, messages
        self.error: Exception | None = None
        self.title: str | None = None
        self.advance: Progress
        self.shown = ExitStack()

    def listen(self, show: ShowProgress) -> None:
        """Take in what it has said since."""
        try:
            while self.messages.poll():
                said = self.messages.recv()
                if isinstance(said, Exception):
                    self.error = said
                    continue
                title, unit, done, total = said
                if title != self.title:
                    self.shown.close()
                    self.title, self.advance = title, self.shown.enter_context(show(title, unit))
                self.advance(done, total)
        except (EOFError, OSError):  # it has ended, in the middle of a word perhaps
            return

    def end(self) -> None:
        """Take leave of a process that has ended, or end it."""
        self.process.kill()
        self.process.join()
        self.messages.close()
        self.shown.close()


class _Processes:
    """The processes that are going on; they end with the block."""

    def __init__(self, plan: Plan, show: ShowProgress) -> None:
        self.plan, self.show = plan, show
        self.running: list[_Running] = []
        self.failed: dict[Trajectory, str] = {}
        self.asked_to_stop = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self.running:
            each.end()

    def begin(self, trajectory: Trajectory) -> None:
        """Begin a trajectory."""
        context = multiprocessing.get_context("spawn")  # a fork would take over torch's threads as they stand
        mine, theirs = context.Pipe()
        place = list(self.plan.trajectories()).index(trajectory)
        threads = editing_threads(self.plan.config.trajectories_at_once)
        process = context.Process(target=_edit, args=(self.plan.config, place, threads, theirs), daemon=True)
        with _signals_for_the_parent():
            process.start()
        theirs.close()
        self.running.append(_Running(trajectory, process, mine))

    def ask_to_stop(self) -> None:
        """Ask each to stop after the turn that it is in; one that has not come so far, and waits perhaps, is ended."""
        for each in () if self.asked_to_stop else self.running:
            if each.title is None:
                each.process.kill()
            else:
                _say(each.messages, None)
        self.asked_to_stop = True

    def attend(self) -> None:
        """Wait a moment for what they say, and take leave of those that have ended."""
        wait([end for each in self.running for end in (each.messages, each.process.sentinel)], SECONDS_BETWEEN_LOOKS)
        for each in list(self.running):
            has_ended = each.process.exitcode is not None  # looked at before its last words are heard
            each.listen(self.show)
            if has_ended:
                self.running.remove(each)
                each.end()
                self._judge(each)

    def _judge(self, ended: _Running) -> None:
        """Whether it failed is a result; what is wrong with the input or the disk is the end of all."""
        if isinstance(ended.error, ValueError | OSError):
            raise ended.error
        if ended.error is not None:
            self.failed[ended.trajectory] = str(ended.error)
        elif ended.process.exitcode:
            self.failed[ended.trajectory] = f"RuntimeError: its process {_end_in_words(ended.process.exitcode)}"


def _end_in_words(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}; what it said of that is in the log"
    often = ", as the system does where memory runs out" if -code == signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{often}"


def _edit(config: BenchmarkConfig, place: int, threads: int, messages: Connection) -> None:
    """What a process does: edit the trajectory at a place of the plan, and say how it goes."""
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        plan = make_plan(config)
        trajectory = list(plan.trajectories())[place]
        order = f", order {trajectory.order_seed}" if len(config.order_seeds) > 1 else ""
        run_editing_job(
            trajectory.job,
            plan.planned(trajectory.order_seed),
            plan.checkpoints_folder(trajectory),
            show=_said_to(messages),
            title=f"Editing with {trajectory.label}{order}",
            threads=threads,
            stop_asked=messages.poll,
        )
    except StoppedError:
        return
    except ValueError as error:
        _say(messages, ValueError(str(error)))
    except OSError as error:
        _say(messages, OSError(str(error)))
    except (RuntimeError, MemoryError) as error:
        from overedit.tasks.system.untrusted import one_line

        _say(messages, RuntimeError(one_line(error)))


def _end_with_parent() -> None:
    """End at once when the parent is gone: whoever starts the run again must be alone with its files."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def _said_to(messages: Connection) -> ShowProgress:
    @contextmanager
    def show(title: str, unit: str) -> Iterator[Progress]:
        _say(messages, (title, unit, 0, 0))
        yield _now_and_then(lambda done, total: _say(messages, (title, unit, done, total)))

    return show


def _now_and_then(advance: Progress) -> Progress:
    """Twice a second is enough for people, and a method may count thousands of steps in that time."""
    last = time.monotonic() - SECONDS_BETWEEN_REPORTS

    def some(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= SECONDS_BETWEEN_REPORTS:
            last = time.monotonic()
            advance(done, total)

    return some


def _say(messages: Connection, what: object) -> None:
    """Say something to the other side, which may have ended."""
    try:
        messages.send(what)
    except OSError:
        return


@contextmanager
def _signals_for_the_parent() -> Iterator[None]:
    """What is begun in the block hears neither Ctrl-C nor SIGTERM, which often go to all processes of a group.

    They are the parent's, who passes one stop on.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
