"""Where a flow meets Prefect: task runs, retries, progress and report artifacts."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from uuid import UUID

import torch
from httpx import HTTPError
from prefect import Task
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext

from overedit.editing.method import Progress
from overedit.editing.storage.atomic import remove_leftovers
from overedit.editing.storage.disk_space import NoSpaceError
from overedit.tasks.report.data import RunData, collect
from overedit.tasks.report.figures import save_figures
from overedit.tasks.report.page import write_page
from overedit.tasks.report.summary import summary_markdown
from overedit.tasks.runs.run import Run
from overedit.tasks.system.progress import shown
from overedit.tasks.system.untrusted import one_line

logger = logging.getLogger(__name__)


def device_tags() -> list[str]:
    """What Prefect counts editing tasks by; a tag is asked of the server, so there is none that limits nothing."""
    return ["gpu"] if torch.cuda.is_available() else []


def in_task(work: Task[..., Any], *arguments: Any, name: str, tags: Sequence[str] = ()) -> Any:
    """Do work in a task run that says what it is; outside a flow run, where there is no server to tell, plainly."""
    if FlowRunContext.get() is None:
        return work.fn(*arguments)
    return work.with_options(task_run_name=name, tags=tags)(*arguments)


def is_input_output(_task: Any, _run: Any, state: Any) -> bool:
    """Whether a failure is worth another try: a disk's or a server's, never a wrong number's or a full memory's."""
    error = state.result(raise_on_failure=False)
    if not isinstance(error, OSError) or isinstance(error, NoSpaceError):
        return False
    logger.warning("a disk or a server failed, which may pass: %s", one_line(error))
    return True


def shown_in_flow(title: str, unit: str) -> AbstractContextManager[Progress]:
    """Progress on the terminal and as an artifact in the UI."""
    return shown(title, unit, artifact=progress_artifact())


def lines_in_flow(title: str, unit: str) -> AbstractContextManager[Progress]:
    """The same for several pieces of work at once."""
    return shown(title, unit, artifact=progress_artifact(), lines=True)


def publish(run: Run) -> Path:
    """Write the report page and the pictures, and, inside a flow run, the artifacts that show them in the UI."""
    for folder in (run.folder, run.report.parent):
        remove_leftovers(folder)
    data = collect(run.warehouse, run.name)
    write_page(data, run.report)
    pictures = save_figures(data, run.report, protocol=(data.protocols or ("generated",))[0])
    run.warehouse.publish()
    if FlowRunContext.get() is not None:
        _publish_artifacts(run, data, pictures)
    return run.report


def _publish_artifacts(run: Run, data: RunData, pictures: Mapping[str, Path]) -> None:
    try:
        _create_artifacts(run, data, pictures)
    except HTTPError as error:
        logger.warning("Prefect's server does not answer; the report is not shown in its UI: %s", one_line(error))


def _create_artifacts(run: Run, data: RunData, pictures: Mapping[str, Path]) -> None:
    create_markdown_artifact(key="leaderboard", markdown=summary_markdown(data), description="The tables")
    for key, picture in pictures.items():
        image = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
        create_image_artifact(key=key, image_url=image, description=key.replace("-", " ").capitalize())
    create_link_artifact(
        key="report", link=run.report.as_uri(), link_text=run.report.name, description="The report page"
    )


def progress_artifact() -> Callable[[float, str], None] | None:
    """A function that shows (percent, text) as a progress artifact of the flow run; None outside one."""
    return None if FlowRunContext.get() is None else _ProgressArtifact()


class _ProgressArtifact:
    """How far a stage is, in the UI; a server that does not answer is asked no more, and stops nothing."""

    def __init__(self) -> None:
        self._identifier: UUID | None = None
        self._is_lost = False

    def __call__(self, percent: float, text: str) -> None:
        if self._is_lost:
            return
        try:
            if self._identifier is not None:
                update_progress_artifact(self._identifier, progress=percent, description=text)
            else:
                made = create_progress_artifact(progress=percent, key="progress", description=text)
                assert isinstance(made, UUID)  # outside an event loop it is not a coroutine
                self._identifier = made
        except HTTPError as error:
            self._is_lost = True
            logger.warning("Prefect's server does not answer; progress is shown here alone: %s", one_line(error))
