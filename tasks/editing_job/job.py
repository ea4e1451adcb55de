"""One editing job: a model, a method and requests in, checkpoints out; it needs no server, engine or warehouse."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Container, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict

from overedit.editing.methods.base import MethodConfig
from overedit.editing.methods.registry import METHODS, AnyMethod
from overedit.editing.model.streaming import is_streamed
from overedit.editing.storage.atomic import remove_leftovers
from overedit.editing.trajectory import runner as trajectory
from overedit.editing.trajectory.checkpoint import Checkpoint, whole_checkpoints
from overedit.editing.trajectory.editor import LINE
from overedit.editing.trajectory.interruption import CheckpointPolicy, stop_on_signals
from overedit.editing.trajectory.runner import end_of_line, run_trajectory
from overedit.editing.trajectory.settings import Schedule, Source, TrajectorySettings
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.editing_job.covariance_cache import covariance_key, covariance_of
from overedit.tasks.models.loading import LoadedModel, editing_threads
from overedit.tasks.models.placement import Placement, load_placed
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.storage.working_copy import pull, sync
from overedit.tasks.system.gpu_locks import gpu_lock
from overedit.tasks.system.progress import ShowProgress, unseen
from overedit.tasks.system.stage_key import SourceIndex

logger = logging.getLogger(__name__)


class EditingJob(BaseModel):
    """Everything that determines a trajectory's checkpoints, except the requests."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: ModelReference
    method: AnyMethod
    edit_counts: tuple[int, ...]
    turn_size: int = 100
    seed: int = 0
    placement: Placement = Placement()
    """Determines no bit of the checkpoints."""

    def key(self, requests: RequestStore, sources: SourceIndex | None = None) -> str:
        """Digest of the base weights, requests, configuration and code that determine a checkpoint.

        Args:
            requests: Those that the checkpoint has, in the order of editing.
            sources: Keeps parsed source files between keys.
        """
        return (sources or SourceIndex()).key(
            sys.modules[METHODS[self.method.method].config.__module__],
            trajectory,
            weights=self.model.digest,
            dtype=self.model.dtype,
            method=self.method.model_dump(mode="json"),
            turn_size=self.turn_size,
            seed=self.seed,
            requests=requests.digest,
            **inputs_key(self.method, self.model.digest),
        )

    def checkpoint_keys(self, requests: RequestStore, sources: SourceIndex | None = None) -> Callable[[int], str]:
        """Edit count -> key of the checkpoint there; it does not depend on the other counts."""
        sources, known = sources or SourceIndex(), dict[int, str]()

        def key_at(edit_count: int) -> str:
            if edit_count not in known:
                known[edit_count] = self.key(requests.first(edit_count), sources)
            return known[edit_count]

        return key_at


class _Loaded(NamedTuple):
    """What a model was loaded for."""

    model: ModelReference
    placement: Placement
    sites: frozenset[str]


class Prepared:
    """The model of the last job and its method's inputs, for a process that does several jobs one after another."""

    def __init__(self) -> None:
        self._model: tuple[_Loaded, LoadedModel] | None = None
        self._inputs: tuple[MethodConfig, dict[str, Any]] | None = None

    def model(self, job: EditingJob) -> LoadedModel:
        """The pristine model, loaded if the last job had another, or other weights of it on the device."""
        wanted = _Loaded(job.model, job.placement, frozenset(job.method.sites))
        if self._model is not None:
            (model, placement, sites), loaded = self._model
            if (model, placement) == wanted[:2] and (sites >= wanted.sites or not is_streamed(loaded.model)):
                return loaded
        self.clear()
        self._model = wanted, load_placed(job.model, job.placement, job.method.sites)
        return self._model[1]

    def inputs(self, job: EditingJob, show: ShowProgress) -> dict[str, Any]:
        """The inputs of a job's method, read or computed if the last job had another method."""
        loaded = self.model(job)
        if self._inputs is None or self._inputs[0] != job.method:
            self._inputs = None
            self._inputs = job.method, method_inputs(job.method, loaded, job.model.digest, show)
        return self._inputs[1]

    def clear(self) -> None:
        """Free the model."""
        self._model = self._inputs = None


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
    continues: bool = False,
    prepared: Prepared | None = None,
) -> list[Checkpoint]:
    """Edit a model and write its checkpoints into `folder`; whole checkpoints of the same key are not made again.

    Args:
        job: Model, method and schedule.
        requests: In the order of editing; at least as many as the last edit count.
        folder: Gets one checkpoint folder per edit count, named like `00000100`.
        show: Shows the progress of each stage.
        title: Title of the editing's progress; "Editing with ..." by default.
        threads: Torch threads if there is no GPU; `editing_threads()` by default.
        stop_asked: Checked after each turn; by default it tells whether SIGTERM or Ctrl-C was received.
        sources: Keeps parsed source files between jobs.
        continues: Keep the main line's states and the checkpoints at other counts, because more counts of this
            trajectory may be asked for; the caller ends with `remove_others`.
        prepared: Keeps the model in memory for the next job.

    Raises:
        ValueError: The model, a site, a corpus or the schedule does not fit.
        StoppedError: A stop was requested; the same call continues.
    """
    pull(folder)
    key_at = job.checkpoint_keys(requests, sources)
    finished = finished_checkpoints(job, key_at, folder)
    if finished:
        _end(folder, finished, continues=continues)
        return finished
    if not torch.cuda.is_available():
        torch.set_num_threads(threads or editing_threads())
    stops = stop_on_signals() if stop_asked is None else nullcontext(stop_asked)
    given = prepared or Prepared()
    with gpu_lock():
        try:
            found = _edited(
                job, requests, folder, given, key_at, show=show, title=title, stops=stops, continues=continues
            )
        except BaseException:
            given.clear()
            raise
        if prepared is None:
            given.clear()  # while the GPU is held
    _end(folder, found, continues=continues)
    return found


def _edited(
    job: EditingJob,
    requests: RequestStore,
    folder: Path,
    prepared: Prepared,
    key_at: Callable[[int], str],
    *,
    show: ShowProgress,
    title: str | None,
    stops: AbstractContextManager[Callable[[], bool]],
    continues: bool,
) -> list[Checkpoint]:
    """Edit from the newest whole checkpoint on."""
    entry = METHODS[job.method.method]
    loaded, inputs = prepared.model(job), prepared.inputs(job, show)
    with show(title or f"Editing with {entry.label}", "edits") as progress, stops as stop_asked:
        return list(
            run_trajectory(
                *loaded,
                requests,
                job.method,
                method=entry,
                settings=TrajectorySettings(
                    Schedule(job.edit_counts, job.turn_size, job.seed),
                    Source(key_at=key_at, model=job.model.name, model_digest=job.model.digest),
                    folder,
                    CheckpointPolicy(stop_asked=stop_asked),
                    continues,
                    changed=sync,
                ),
                inputs=inputs,
                progress=progress,
            )
        )


def finished_checkpoints(job: EditingJob, key_at: Callable[[int], str], folder: Path) -> list[Checkpoint]:
    """The checkpoints of a complete trajectory in their order, pruned ones included; empty if one is missing."""
    found = {checkpoint.record.edit_count: checkpoint for checkpoint in _in_order(folder, key_at)}
    end = end_of_line(found.values())
    wanted = [count for count in job.edit_counts if end is None or count < end.record.edit_count]
    ended = [end.record.edit_count] if end is not None and len(wanted) < len(job.edit_counts) else []
    return [found[count] for count in wanted + ended] if found.keys() >= set(wanted) else []


def written_checkpoints(job: EditingJob, requests: RequestStore, folder: Path) -> list[Checkpoint]:
    """The checkpoints that a trajectory has written so far, in their order, pruned ones included."""
    pull(folder)
    return _in_order(folder, job.checkpoint_keys(requests))


def _in_order(folder: Path, key_at: Callable[[int], str]) -> list[Checkpoint]:
    found = whole_checkpoints(folder, key_at, or_pruned=True)
    return sorted(found, key=lambda checkpoint: checkpoint.record.edit_count)


def remove_others(folder: Path, counts: Container[int]) -> None:
    """Remove what a trajectory that is complete does not need: states of its main line, checkpoints at other counts."""
    shutil.rmtree(folder / LINE, ignore_errors=True)
    sync(folder / LINE)
    for path in folder.glob("[0-9]*"):
        if path.name.isdecimal() and int(path.name) not in counts:
            logger.info("removed a checkpoint that no longer belongs to its trajectory: %s", path)
            shutil.rmtree(path)
            sync(path)


def method_inputs(method: MethodConfig, loaded: LoadedModel, model_digest: str, show: ShowProgress) -> dict[str, Any]:
    """Compute or read a method's inputs from the pristine model: argument name -> value."""
    options = method.covariance_options
    if options is None:
        return {}
    with show(
        f"Reading {options.path or options.corpus} for {METHODS[method.method].label}'s covariance", "texts"
    ) as progress:
        found = covariance_of(*loaded, options, method.covariances, model_digest=model_digest, progress=progress)
        return {"covariance": found}


def inputs_key(method: MethodConfig, model_digest: str) -> dict[str, Any]:
    """A JSON-able key of these inputs."""
    options = method.covariance_options
    return {"covariance": covariance_key(options, method.covariances, model_digest=model_digest)} if options else {}


def _end(folder: Path, checkpoints: Sequence[Checkpoint], *, continues: bool) -> None:
    """Remove the leftovers of killed processes, and all that later counts of the trajectory would need."""
    remove_leftovers(folder)
    if not continues:
        remove_others(folder, {checkpoint.record.edit_count for checkpoint in checkpoints})
