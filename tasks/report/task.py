"""Publishing a run, as a Prefect task: the report page, the pictures, and artifacts that show them in the UI."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from httpx import HTTPError
from prefect.artifacts import create_image_artifact, create_link_artifact, create_markdown_artifact
from prefect.context import FlowRunContext

from overedit.editing.storage.atomic import remove_leftovers
from overedit.tasks.report.data import RunData
from overedit.tasks.report.files import write_report
from overedit.tasks.report.findings import log_warnings
from overedit.tasks.report.freshness import is_current
from overedit.tasks.report.server import report_link
from overedit.tasks.report.summary import summary_markdown
from overedit.tasks.runs.run import Run
from overedit.tasks.storage.working_copy import shown_path
from overedit.tasks.system.task_runs import artifact_key, retried_stage
from overedit.tasks.system.untrusted import one_line

logger = logging.getLogger(__name__)


@retried_stage
def publish(run: Run) -> Path:
    """Write the report page and the pictures, and, inside a flow run, the artifacts that show them in the UI.

    A report that was made from the same rows by the same code is left as it is.
    """
    for folder in (run.folder, run.report.parent):
        remove_leftovers(folder)
    if is_current(run.warehouse, run.name, run.report):
        return run.report
    run.warehouse.publish()
    written = write_report(run.warehouse, run.name, run.report)
    log_warnings(written.data)
    if FlowRunContext.get() is not None:
        _publish_artifacts(run, written.data, written.pictures)
    return run.report


def _publish_artifacts(run: Run, data: RunData, pictures: Mapping[str, Path]) -> None:
    try:
        _create_artifacts(run, data, pictures)
    except HTTPError as error:
        logger.warning("Prefect's server does not answer; the report is not shown in its UI: %s", one_line(error))


def _create_artifacts(run: Run, data: RunData, pictures: Mapping[str, Path]) -> None:
    key = partial(artifact_key, run=run.name)
    create_markdown_artifact(key=key("leaderboard"), markdown=summary_markdown(data), description="The tables")
    for kind, picture in pictures.items():
        image = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
        create_image_artifact(key=key(kind), image_url=image, description=kind.replace("-", " ").capitalize())
    create_link_artifact(
        key=key("report"),
        link=report_link(run.name),
        link_text=run.report.name,
        description=f"The report page, served by overedit ui; the file is {shown_path(run.report)}",
    )
