"""One editing job: a model, a method and requests in; checkpoints out; no server, engine or warehouse is needed."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from overedit.editing.method import MethodConfig
from overedit.editing.methods import METHODS, AnyMethod
from overedit.editing.storage.atomic import remove_leftovers
from overedit.editing.trajectory import runner as trajectory
from overedit.editing.trajectory.checkpoint import Checkpoint, whole_checkpoints
from overedit.editing.trajectory.interruption import CheckpointPolicy, stop_on_signals
from overedit.editing.trajectory.runner import INTERIM, Schedule, Source, TrajectorySettings, run_trajectory
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.editing_job.covariance_cache import covariance_key, covariance_of
from overedit.tasks.models.loading import LoadedModel, editing_threads, load_model
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.system.gpu_locks import gpu_lock
from overedit.tasks.system.progress import ShowProgress, unseen
from overedit.tasks.system.stage_key import SourceIndex

logger = logging.getLogger(__name__)


class EditingJob(BaseModel):
    """All that determines a trajectory's checkpoints, but the requests."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: ModelReference
    method: AnyMethod
    edit_counts: tuple[int, ...]
    turn_size: int = 100
    seed: int = 0

    def key(self, requests: RequestStore, sources: SourceIndex | None = None) -> str:
        """Digest of the base weights, requests, configuration and code that make the trajectory.

        Args:
            requests: In the order of editing.
            sources: Keeps parsed source files between keys.
        """
        return (sources or SourceIndex()).key(
            sys.modules[METHODS[self.method.method].config.__module__],
            trajectory,
            weights=self.model.digest,
            dtype=self.model.dtype,
            method=self.method.model_dump(mode="json"),
            edit_counts=self.edit_counts,
            turn_size=self.turn_size,
            seed=self.seed,
            requests=requests.first(self.edit_counts[-1]).digest,
            **inputs_key(self.method, self.model.digest),
        )


def run_editing_job(
    job: EditingJob,
    requests: RequestStore,
    folder: Path,
    *,
    show: ShowProgress = unseen,
    title: str | None = None,
    threads: int | None = None,
    stop_asked: Callable[[], bool] | None = None,
    sources: SourceIndex | None = None,
) -> list[Checkpoint]:
    """Edit a model and leave its checkpoints in `folder`; what lies there already, whole and of the same key, is kept.

    Args:
        job: What to do.
        requests: In the order of editing; at least as many as the last edit count.
        folder: One checkpoint folder an edit count, named like `00000100`, is written into it.
        show: Shows the progress of each stage.
        title: What the editing is called there; "Editing with ..." by default.
        threads: Torch's, where there is no GPU; `editing_threads()` by default.
        stop_asked: Looked at after each turn; by default SIGTERM and Ctrl-C ask.
        sources: Keeps parsed source files between jobs.

    Raises:
        ValueError: A model, site, corpus or schedule that does not fit.
        StoppedError: A stop was asked for; the same call continues.
    """
    key = job.key(requests, sources)
    there = finished_checkpoints(job, key, folder)
    if there:
        _remove_stale(folder, there)
        return there
    if not torch.cuda.is_available():
        torch.set_num_threads(threads or editing_threads())
    stops = stop_on_signals() if stop_asked is None else nullcontext(stop_asked)
    with gpu_lock():
        return _edited(job, requests, folder, key=key, show=show, title=title, stops=stops)


def _edited(
    job: EditingJob,
    requests: RequestStore,
    folder: Path,
    *,
    key: str,
    show: ShowProgress,
    title: str | None,
    stops: AbstractContextManager[Callable[[], bool]],
) -> list[Checkpoint]:
    """Edit from the newest whole checkpoint on; the model is gone when this returns."""
    entry = METHODS[job.method.method]
    loaded = load_model(job.model)
    inputs = method_inputs(job.method, loaded, job.model.digest, show)
    with show(title or f"Editing with {entry.label}", "edits") as progress, stops as stop_asked:
        checkpoints = list(
            run_trajectory(
                *loaded,
                requests,
                job.method,
                method=entry,
                settings=TrajectorySettings(
                    Schedule(job.edit_counts, job.turn_size, job.seed),
                    Source(key=key, model=job.model.name, model_digest=job.model.digest),
                    folder,
                    CheckpointPolicy(stop_asked=stop_asked),
                ),
                inputs=inputs,
                progress=progress,
            )
        )
    _remove_stale(folder, checkpoints)
    return checkpoints


def finished_checkpoints(job: EditingJob, key: str, folder: Path) -> list[Checkpoint]:
    """The checkpoints of a trajectory that was edited to its end, in their order, pruned ones too.

    None if anything is missing.
    """
    there = _in_order(folder, key)
    counts = tuple(checkpoint.record.edit_count for checkpoint in there)
    ended_early = bool(there) and not there[-1].record.finite
    return there if counts == job.edit_counts or ended_early else []


def written_checkpoints(job: EditingJob, requests: RequestStore, folder: Path) -> list[Checkpoint]:
    """The checkpoints of a trajectory that are there, in their order, however far it came; pruned ones too."""
    return _in_order(folder, job.key(requests))


def _in_order(folder: Path, key: str) -> list[Checkpoint]:
    there = whole_checkpoints(folder, key, or_pruned=True)
    return sorted(there, key=lambda checkpoint: checkpoint.record.edit_count)


def method_inputs(method: MethodConfig, loaded: LoadedModel, model_digest: str, show: ShowProgress) -> dict[str, Any]:
    """What a method's function is told of the pristine model, argument -> value."""
    options = method.covariance_options
    if options is None:
        return {}
    with show(
        f"Reading {options.path or options.corpus} for {METHODS[method.method].label}'s covariance", "texts"
    ) as progress:
        found = covariance_of(*loaded, options, method.sites, model_digest=model_digest, progress=progress)
        return {"covariance": found}


def inputs_key(method: MethodConfig, model_digest: str) -> dict[str, Any]:
    """What tells these inputs apart, JSON-able."""
    options = method.covariance_options
    return {"covariance": covariance_key(options, method.sites, model_digest=model_digest)} if options else {}


def _remove_stale(folder: Path, kept: Sequence[Checkpoint]) -> None:
    """Remove what lies beside a trajectory's checkpoints at its end: other code's, and what killed processes left."""
    remove_leftovers(folder)
    shutil.rmtree(folder / INTERIM, ignore_errors=True)
    names = {checkpoint.folder.name for checkpoint in kept}
    for path in folder.glob("[0-9]*"):
        if path.name not in names:
            logger.info("removed a checkpoint that no longer belongs to its trajectory: %s", path)
            shutil.rmtree(path)
