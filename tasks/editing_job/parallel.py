"""Edits several trajectories at once, each in its own process.

A process reads its own requests, edits one trajectory, and leaves its checkpoints where the run expects them; the
parent finds them there. It ends when its parent ends, for whatever reason: nothing goes on editing unattended.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import NamedTuple, Self

from overedit.editing.methods.base import Progress
from overedit.editing.trajectory.interruption import StoppedError, stop_on_signals
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DatasetOptions
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.editing_job.job import EditingJob, finished_checkpoints, run_editing_job
from overedit.tasks.models.loading import editing_threads
from overedit.tasks.system.progress import ShowProgress
from overedit.tasks.system.untrusted import one_line

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_REPORTS = 0.5


class QueuedJob(NamedTuple):
    """An editing job with the sources and folders that a separate process needs."""

    job: EditingJob
    dataset: DatasetOptions
    """Read anew by the process, in the order of editing."""
    requests: RequestStore
    """The same requests as the parent has read them."""
    folder: Path
    title: str
    """What the progress is called."""
    continues: bool = False
    """Whether more edit counts of this trajectory may be asked for."""


def edit_in_processes(jobs: Sequence[QueuedJob], num_processes: int, *, show: ShowProgress) -> dict[Path, str]:
    """Run the jobs that are not finished, at most `num_processes` at once.

    Args:
        jobs: One for each trajectory.
        num_processes: How many at once; each has its share of the processor's cores.
        show: Shows the progress of each; several are shown at once.

    Returns:
        Folder -> why its job failed, for those that did.

    Raises:
        StoppedError: SIGTERM or Ctrl-C came; each has kept what it had, and the same call continues.
        ValueError, OSError: A job ended so, and the others were ended with it.
    """
    waiting = deque(job for job in jobs if not _is_finished(job))
    with stop_on_signals() as stop_asked, _Processes(num_processes, show) as processes:
        while waiting or processes.running:
            while waiting and len(processes.running) < num_processes and not stop_asked():
                processes.begin(waiting.popleft())
            if stop_asked():
                waiting.clear()
                processes.ask_to_stop()
            processes.attend()
        if stop_asked():
            raise StoppedError("stopped after the turns that were going on, as asked")
        return processes.failed


def _is_finished(queued: QueuedJob) -> bool:
    return bool(finished_checkpoints(queued.job, queued.job.checkpoint_keys(queued.requests), queued.folder))


class _Running:
    """A process that edits a trajectory, and the messages it has sent."""

    def __init__(self, folder: Path, process: BaseProcess, messages: Connection) -> None:
        self.folder, self.process, self.messages = folder, process, messages
        self.error: Exception | None = None
        self.title: str | None = None
        self.advance: Progress
        self.shown = ExitStack()

    def listen(self, show: ShowProgress) -> None:
        """Read the messages sent since."""
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
        """End the process if it runs, and release what belongs to it."""
        self.process.kill()
        self.process.join()
        self.messages.close()
        self.shown.close()


class _Processes:
    """The running processes; they end with the block."""

    def __init__(self, num_processes: int, show: ShowProgress) -> None:
        self.num_processes, self.show = num_processes, show
        self.running: list[_Running] = []
        self.failed: dict[Path, str] = {}
        self.asked_to_stop = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self.running:
            each.end()

    def begin(self, queued: QueuedJob) -> None:
        """Start a process for a job."""
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads in an undefined state
        mine, theirs = context.Pipe()
        threads = editing_threads(self.num_processes)
        arguments = (queued.job, queued.dataset, queued.folder, queued.title, queued.continues, threads, theirs)
        process = context.Process(target=_edit, args=arguments, daemon=True)
        with _signals_for_the_parent():
            process.start()
        theirs.close()
        self.running.append(_Running(queued.folder, process, mine))

    def ask_to_stop(self) -> None:
        """Ask each to stop after its present turn; one that has not begun to edit is ended."""
        for each in () if self.asked_to_stop else self.running:
            if each.title is None:
                each.process.kill()
            else:
                _send(each.messages, None)
        self.asked_to_stop = True

    def attend(self) -> None:
        """Wait a moment for messages, and collect the processes that have ended."""
        wait([end for each in self.running for end in (each.messages, each.process.sentinel)], SECONDS_BETWEEN_LOOKS)
        for each in list(self.running):
            has_ended = each.process.exitcode is not None  # looked at before its last words are heard
            each.listen(self.show)
            if has_ended:
                self.running.remove(each)
                each.end()
                self._judge(each)

    def _judge(self, ended: _Running) -> None:
        """Store a failure as a result; a mistake in the input, or a full disk, ends all of them."""
        if isinstance(ended.error, ValueError | OSError):
            raise ended.error
        if ended.error is not None:
            self.failed[ended.folder] = str(ended.error)
        elif ended.process.exitcode:
            self.failed[ended.folder] = f"RuntimeError: its process {_end_in_words(ended.process.exitcode)}"


def _end_in_words(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}; the reason is in the log"
    often = ", as the system does where memory runs out" if -code == signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{often}"


def _edit(
    job: EditingJob,
    dataset: DatasetOptions,
    folder: Path,
    title: str,
    continues: bool,
    threads: int,
    messages: Connection,
) -> None:
    """What a process does: run a job, and send messages about its progress and its end."""
    Thread(target=_end_with_parent, daemon=True).start()
    try:
        requests = load_requests(dataset).requests
        show, stop_asked = _sender(messages), messages.poll
        run_editing_job(
            job,
            requests,
            folder,
            show=show,
            title=title,
            threads=threads,
            stop_asked=stop_asked,
            continues=continues,
        )
    except StoppedError:
        return
    except ValueError as error:
        _send(messages, ValueError(str(error)))
    except OSError as error:
        _send(messages, OSError(str(error)))
    except (RuntimeError, MemoryError) as error:
        _send(messages, RuntimeError(one_line(error)))


def _end_with_parent() -> None:
    """Exit when the parent has ended: the process that continues the run must be the only one that writes its files."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def _sender(messages: Connection) -> ShowProgress:
    @contextmanager
    def show(title: str, unit: str) -> Iterator[Progress]:
        _send(messages, (title, unit, 0, 0))
        yield _now_and_then(lambda done, total: _send(messages, (title, unit, done, total)))

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


def _send(messages: Connection, what: object) -> None:
    """Send a message to the other side, which may have ended."""
    try:
        messages.send(what)
    except OSError:
        return


@contextmanager
def _signals_for_the_parent() -> Iterator[None]:
    """Block Ctrl-C and SIGTERM for processes started in this block; they are often sent to a whole process group.

    They are the parent's, who passes one stop on.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
