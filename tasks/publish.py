"""What a run leaves behind for people: rows about the run itself, the report, the curve, and Prefect artifacts."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext

from overedit.editing.storage.atomic import remove_leftovers
from overedit.editing.storage.checksums import digest
from overedit.editing.trajectory.checkpoint import Checkpoint
from overedit.tasks.engine import EngineStart
from overedit.tasks.measure import Subject
from overedit.tasks.report.data import RunData, collect
from overedit.tasks.report.figures import save_figures
from overedit.tasks.report.page import write_page
from overedit.tasks.report.summary import summary_markdown
from overedit.tasks.run import Place, Run, hardware, versions
from overedit.tasks.system.untrusted import one_line

logger = logging.getLogger(__name__)


def store_checkpoint(place: Place, checkpoint: Checkpoint) -> None:
    """Store a checkpoint's tensors and costs as rows."""
    record, costs = checkpoint.record, checkpoint.costs
    tables = ("diagnostics", "checkpoints")
    if all(place.holds(table, record.key) for table in tables) and place.holds("costs", record.key, part="edit"):
        return
    weights = checkpoint.folder / "weights.safetensors"
    rows = [
        {
            "parameter": name,
            "sha256": tensor.sha256,
            "weight_norm": record.norms[name].weight,
            "base_norm": record.norms[name].base,
            "update_norm": record.norms[name].update,
            "path": str(checkpoint.folder),
            "bytes": 0 if record.pruned else weights.stat().st_size,
        }
        for name, tensor in record.tensors.items()
    ]
    rows_of_turns = chain(diagnostics(record.log), turn_seconds(record.log, costs.turn_seconds))
    place.store("diagnostics", rows_of_turns, key=record.key)
    place.store("checkpoints", rows, key=record.key)
    place.store_cost("edit", costs.seconds, costs.num_edits, key=record.key, peak_memory_bytes=costs.peak_memory_bytes)


def diagnostics(log: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of the table `diagnostics`: the numbers in the turns' logs, `<site>/<quantity>` or `<quantity>`."""
    for turn in log:
        for name, value in turn.items():
            if name in ("first", "last") or isinstance(value, str):
                continue
            site, _, quantity = name.rpartition("/")
            edits = {"first_edit": turn["first"], "last_edit": turn["last"]}
            yield edits | {"site": site or None, "quantity": quantity, "value": float(value)}


def turn_seconds(log: Sequence[Mapping[str, Any]], seconds: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Rows of the table `diagnostics`: what each turn took."""
    for turn, value in zip(log, seconds, strict=bool(seconds)):
        yield {"first_edit": turn["first"], "last_edit": turn["last"], "quantity": "seconds", "value": value}


def store_run(
    place: Place,
    *,
    label: str,
    method_config: str,
    config: str,
    model_digest: str,
    engine: str,
    error: str | None,
    started_at: datetime,
) -> None:
    """Store how a trajectory ended, at its last planned edit count; a row that says so already is left as it is."""
    key = digest([model_digest, method_config, error])
    if place.holds("runs", key):
        return
    row = {
        "label": label,
        "config": config,
        "method_config": method_config,
        "model_digest": model_digest,
        "engine": engine,
        "versions": json.dumps(versions()),
        "hardware": hardware(),
        "started_at": started_at,
        "status": "failed" if error else "completed",
        "error": error,
    }
    place.store("runs", [row], key=key)


def store_requests(base: Subject) -> None:
    """Store the requests in the order of editing, once a run and ordering."""
    run, seed = base.place.run, base.place.order_seed
    columns = ("case_id", "prompt", "subject", "target_new", "target_true")
    rows = (
        {
            "run": run.name,
            "dataset": run.dataset,
            "order_seed": seed,
            "position": position,
            "overwritten_by": base.overwritten.get(request.case_id),
            **{column: getattr(request, column) for column in columns},
        }
        for position, request in enumerate(base.requests, start=1)
    )
    partition: dict[str, str | int] = {"run": run.name, "order_seed": seed}
    key = digest([run.dataset, base.requests.digest, dict(base.overwritten)])
    if not run.warehouse.holds("requests", partition, key):
        run.warehouse.write("requests", rows, partition=partition, key=key)


def store_engine_starts(place: Place, starts: Sequence[EngineStart]) -> None:
    """Store a row for each start of the engine; a run that was stopped and continued has one for each time."""
    for start in starts:
        part = f"engine_start-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        place.store_cost("engine_start", start.seconds, 1, key=part, part=part, engine=start.kind)


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
