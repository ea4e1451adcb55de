"""The sweep over sites: at each, a short trajectory on the pristine model in memory, its scores, and the undoing.

Nothing is written but rows: no checkpoint, and no process of its own for the engine. Sites are taken layer by layer, so
that all of them share one pass over the layers (`SharedPrefix`). The rows of a site are stored when it is done, so a
sweep that was stopped continues with the next site.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict

from overedit.editing.methods.base import MethodConfig
from overedit.editing.methods.registry import METHODS, AnyMethod
from overedit.editing.model.partial_forward.shared_prefix import SharedPrefix
from overedit.editing.storage.checksums import digest
from overedit.editing.trajectory.interruption import StoppedError, stop_on_signals
from overedit.tasks.data.corpus import texts_digest
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.editing_job.in_memory import edit_in_memory
from overedit.tasks.editing_job.job import inputs_key, method_inputs
from overedit.tasks.engine.transformers_engine import TransformersEngine
from overedit.tasks.evaluation.capability.local_items import files_digest
from overedit.tasks.evaluation.capability.task_loading import TaskLoader
from overedit.tasks.evaluation.options import MeasureOptions
from overedit.tasks.locate.measures import Meter, Pristine, Row, seconds_row
from overedit.tasks.models.loading import editing_threads
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.runs.run import BASE, Run, TrajectoryPoint, folder_name
from overedit.tasks.system.gpu_locks import gpu_lock
from overedit.tasks.system.progress import ShowProgress, unseen
from overedit.tasks.system.stage_key import SourceIndex
from overedit.tasks.system.untrusted import error_message

TABLE = "site_scores"


class SweepJob(BaseModel):
    """What a sweep does, except the requests."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: ModelReference
    method: AnyMethod
    """Its sites are replaced by each of `sites`."""
    sites: tuple[str, ...]
    """Layer by layer."""
    seeds: tuple[int, ...] = (0,)
    turn_size: int = 100
    measure: MeasureOptions
    shared_prefix: bool = True
    """Whether sites share the forward passes below them; the scores are the same."""


class Split(NamedTuple):
    """The edits of a sweep."""

    name: str
    """`validation` or `test`."""
    requests: RequestStore
    texts: Sequence[str]
    """On which perplexity is measured; none where it is not."""


class Place(NamedTuple):
    """Where the rows of one site and seed are stored; without a site, those of the pristine model."""

    point: TrajectoryPoint
    key: str
    site: str | None = None


def places(job: SweepJob, split: Split, run: Run) -> list[Place]:
    """The pristine model's place, then one per site and seed, in the order in which they are measured."""
    sources, count = SourceIndex(), len(split.requests)
    measure = job.measure.model_dump(mode="json")
    common = {
        "weights": job.model.digest,
        "dtype": job.model.dtype,
        "measure": measure | {"files": files_digest(job.measure.capability.files)},
        "requests": split.requests.digest,
        "texts": texts_digest(split.texts) if split.texts else "",
    }
    base = TrajectoryPoint(run=run, trajectory=BASE, method="none", order_seed=0, edit_count=0)
    found = [Place(base, sources.key(sys.modules[__name__], **common))]
    module = sys.modules[METHODS[job.method.method].config.__module__]
    code = sources.key(sys.modules[__name__], module, turn_size=job.turn_size, **common)
    for site in job.sites:
        method = job.method.at_site(site)
        settings = [method.model_dump(mode="json"), inputs_key(method, job.model.digest)]
        for seed in job.seeds:
            point = TrajectoryPoint(
                run=run, trajectory=folder_name(site), method=method.method, order_seed=seed, edit_count=count
            )
            found.append(Place(point, digest([code, settings, seed]), site))
    return found


def run_sweep(
    job: SweepJob, split: Split, run: Run, *, label: str, loader: TaskLoader | None = None, show: ShowProgress = unseen
) -> None:
    """Edit at every site and store its scores in the table `site_scores`; sites that are stored already are kept.

    Args:
        job: Model, method, sites and measures.
        split: The edits, and what they are for.
        run: The run of the rows.
        label: The method's name in tables.
        loader: Keeps the general benchmarks' task objects between sweeps.
        show: Shows the progress.

    Raises:
        ValueError: A request, a site or a corpus does not fit the model.
        StoppedError: A stop was requested; the same call continues.
    """
    every = places(job, split, run)
    missing = [place for place in every if not place.point.reuse(TABLE, place.key, part=split.name)]
    if not missing:
        return
    if not torch.cuda.is_available():
        torch.set_num_threads(editing_threads())
    about = {"label": label, "split": split.name}
    with gpu_lock(), stop_on_signals() as stop_asked, show(f"Locating with {label}", "sites") as progress:
        for done, (place, rows) in enumerate(_measured(job, split, missing, loader), 1):
            whole = [_of_site(place.site) | about | row for row in rows]
            place.point.store(TABLE, whole, key=place.key, part=split.name)
            progress(len(every) - len(missing) + done, len(every))
            if stop_asked() and done < len(missing):
                raise StoppedError(f"stopped after {done} sites were measured and stored, as asked")


def _measured(
    job: SweepJob, split: Split, missing: Sequence[Place], loader: TaskLoader | None
) -> Iterator[tuple[Place, list[Row]]]:
    """Measure place after place; the model is freed at the end."""
    engine = TransformersEngine(job.model, job.measure.engine.model_copy(update={"dtype": job.model.dtype}))
    try:
        loader = loader or TaskLoader(job.measure.capability)
        meter = Meter(engine, split.requests[:], job.measure, split.texts, loader)
        pristine, prefix = meter.pristine(), SharedPrefix()
        for place in missing:
            yield place, pristine.rows if place.site is None else _at_site(job, place, meter, pristine, prefix)
    finally:
        engine.close()


def _at_site(job: SweepJob, place: Place, meter: Meter, pristine: Pristine, prefix: SharedPrefix) -> list[Row]:
    """The rows of one site and seed. An edit that cannot be solved, or is not finite, is a result with a reason."""
    assert isinstance(meter.engine, TransformersEngine) and place.site is not None
    model, tokenizer = loaded = meter.engine.loaded
    method = job.method.at_site(place.site)
    inputs: dict[str, Any] = method_inputs(method, loaded, job.model.digest, unseen)
    if job.shared_prefix and _takes_prefix(method):
        inputs["prefix_of"] = prefix
    begun = time.perf_counter()
    try:
        edit = edit_in_memory(
            model,
            tokenizer,
            meter.requests,
            method,
            turn_size=job.turn_size,
            seed=place.point.order_seed,
            inputs=inputs,
        )
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
        return [_failure(error_message(error, 500)), seconds_row("editing", time.perf_counter() - begun)]
    seconds = seconds_row("editing", time.perf_counter() - begun)
    with edit:
        if not all(model.get_parameter(name).isfinite().all() for name in edit.parameters):
            return [_failure("the weights are not finite"), seconds]
        meter.engine.route(edit.router)
        try:
            return [*meter.edited(pristine.answers), seconds]
        finally:
            meter.engine.route(None)


def _takes_prefix(method: MethodConfig) -> bool:
    return type(method).takes_prefix


def _failure(reason: str) -> Row:
    return {"measure": "failure", "item": "editing", "value": None, "n": 0, "reason": reason}


def _of_site(site: str | None) -> Row:
    """The columns that name a site."""
    if site is None:
        return {}
    layer, _, part = site.partition(".")
    return {"site": site, "layer": int(layer), "part": part}
