"""Prefect's part of a stage: named task runs, retries for disks and servers, progress in the UI.

Used by the `task.py` of each room. Outside a flow run, where no server listens, a stage runs as a plain function.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import torch
from httpx import HTTPError
from prefect import Task, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from overedit.editing.methods.base import Progress
from overedit.editing.storage.checksums import digest
from overedit.editing.storage.disk_space import NoSpaceError
from overedit.tasks.system.progress import ShowProgress, shown
from overedit.tasks.system.untrusted import one_line

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def in_task(work: Task[..., Any], *arguments: Any, name: str, tags: Sequence[str] = ()) -> Any:
    """Call a task in a named task run; outside a flow run, call its plain function."""
    if FlowRunContext.get() is None:
        return work.fn(*arguments)
    return work.with_options(task_run_name=name, tags=tags)(*arguments)


def stage(function: Callable[P, R]) -> Task[P, R]:
    """A task whose results are files and rows: Prefect neither caches nor stores what it returns."""
    return task(cache_policy=NO_CACHE, persist_result=False)(function)


def retried_stage(function: Callable[P, R]) -> Task[P, R]:
    """A stage that is tried twice more when a disk or a server failed."""
    return stage(function).with_options(retries=2, retry_delay_seconds=5, retry_condition_fn=is_input_output)


def is_input_output(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a failure is worth a retry: a disk's or a server's, never a wrong number or a full memory."""
    error = state.result(raise_on_failure=False)
    if not isinstance(error, OSError) or isinstance(error, NoSpaceError):
        return False
    logger.warning("a disk or a server failed, which may pass: %s", one_line(error))
    return True


def device_tags() -> list[str]:
    """The tags by which Prefect limits tasks that use a GPU; each tag costs a request to the server."""
    return ["gpu"] if torch.cuda.is_available() else []


def artifact_key(kind: str, run: str) -> str:
    """The key of a run's artifact; Prefect's keys hold lowercase letters, digits and hyphens."""
    name = re.sub("[^a-z0-9]+", "-", run.lower()).strip("-")
    return f"{kind}-{name}" if name == run else f"{kind}-{name}-{digest(run)}"  # other names may become the same one


def shown_in_flow(run: str, *, lines: bool = False) -> ShowProgress:
    """Progress of a run on the terminal and as an artifact in the UI.

    Args:
        run: The run's name.
        lines: Lines of text instead of a bar, for several pieces of work at once.
    """

    def show(title: str, unit: str) -> AbstractContextManager[Progress]:
        return shown(title, unit, artifact=progress_artifact(run), lines=lines)

    return show


def progress_artifact(run: str) -> Callable[[float, str], None] | None:
    """A function that shows (percent, text) as a progress artifact of a run; None outside a flow run."""
    return None if FlowRunContext.get() is None else _ProgressArtifact(artifact_key("progress", run))


class _ProgressArtifact:
    """A progress bar in the UI; after the server has failed to answer once, it is not asked again."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._identifier: UUID | None = None
        self._is_lost = False

    def __call__(self, percent: float, text: str) -> None:
        if self._is_lost:
            return
        try:
            if self._identifier is not None:
                update_progress_artifact(self._identifier, progress=percent, description=text)
            else:
                made = create_progress_artifact(progress=percent, key=self._key, description=text)
                assert isinstance(made, UUID)  # outside an event loop it is not a coroutine
                self._identifier = made
        except HTTPError as error:
            self._is_lost = True
            logger.warning(
                "Prefect's server does not answer; progress is shown on the terminal only: %s", one_line(error)
            )
