"""Makes the checkpoints of a run after one more step; whole ones of the same key are kept.

Such a checkpoint is an ordinary one: the exact values of every tensor that differs from the base model. It is below its
trajectory's folder, in `after/`, so it can be swapped into an engine, verified, pruned and exported like any other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch

from overedit.editing.model.memory import peak_bytes, reset_peak
from overedit.editing.storage.atomic import remove_leftovers
from overedit.editing.storage.checksums import digest
from overedit.editing.trajectory.checkpoint import Checkpoint, whole_checkpoints, write_checkpoint
from overedit.editing.trajectory.records import Costs, Norms
from overedit.tasks.data.corpus import texts_digest
from overedit.tasks.durability import change as changing
from overedit.tasks.durability.change import change
from overedit.tasks.durability.options import FinetuneOptions, Operation
from overedit.tasks.models.loading import LoadedModel, editing_threads, load_model
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.storage.working_copy import pull, sync
from overedit.tasks.system.gpu_locks import gpu_lock
from overedit.tasks.system.progress import ShowProgress, unseen
from overedit.tasks.system.stage_key import SourceIndex
from overedit.tasks.system.untrusted import one_line

logger = logging.getLogger(__name__)


class Step(NamedTuple):
    """One checkpoint to make."""

    origin: Checkpoint
    """The edited model."""
    operation: Operation
    folder: Path
    """Where the new checkpoint is written."""


class Settings(NamedTuple):
    """What determines the checkpoints, besides the steps themselves."""

    model: ModelReference
    """The base model, in the dtype of the editing."""
    tuning: FinetuneOptions
    """How `finetune` trains."""
    texts: Mapping[str, Sequence[str]]
    """The name of each `finetune` operation -> what it trains on."""


class Derived(NamedTuple):
    """What became of the steps."""

    checkpoints: dict[Path, Checkpoint]
    """By folder; pruned ones included."""
    errors: dict[Path, str]
    """Folder -> why there is no checkpoint."""


def derive_all(
    steps: Sequence[Step],
    settings: Settings,
    *,
    sources: SourceIndex | None = None,
    show: ShowProgress = unseen,
    threads: int | None = None,
) -> Derived:
    """Make the checkpoints that are missing. The model is loaded once, and only if one is.

    Args:
        steps: What to make.
        settings: The base model, and how to train.
        sources: Keeps parsed source files between stage keys.
        show: Shows the progress.
        threads: Torch threads if there is no GPU; `editing_threads()` by default.

    Raises:
        NoSpaceError: The disk has no room; what was written before is whole.
        ValueError: The model does not fit; see `change`.
    """
    sources = sources or SourceIndex()
    keys = {step.folder: _key(step, settings, sources) for step in steps}
    found = {step.folder: kept for step in steps if (kept := _kept(step, keys[step.folder])) is not None}
    missing = [step for step in steps if step.folder not in found]
    if not missing:
        return Derived(found, {})
    if not torch.cuda.is_available():
        torch.set_num_threads(threads or editing_threads())
    errors = {}
    with gpu_lock(), show("One more step after the edits", "checkpoints") as progress:
        loaded = load_model(settings.model)
        for done, step in enumerate(missing, 1):
            try:
                found[step.folder] = _derive(loaded, step, settings, keys[step.folder])
            except (RuntimeError, MemoryError) as error:
                errors[step.folder] = f"{step.operation.name}: {one_line(error)}"
            progress(done, len(missing))
    return Derived(found, errors)


def _kept(step: Step, key: str) -> Checkpoint | None:
    """The whole checkpoint of this key that is there already."""
    pull(step.folder)
    remove_leftovers(step.folder.parent)
    found = whole_checkpoints(step.folder.parent, lambda _: key, or_pruned=True, among=[int(step.folder.name)])
    return next(found, None)


def _derive(loaded: LoadedModel, step: Step, settings: Settings, key: str) -> Checkpoint:
    reset_peak()
    begun = time.perf_counter()
    before, name = step.origin.record, step.operation.name
    changed = change(loaded, step.origin.tensors(), step.operation, settings.tuning, settings.texts.get(name, ()))
    finite = all(bool(tensor.isfinite().all()) for tensor in changed.tensors.values())
    copied = ("edit_count", "branched_from", "schedule", "model", "model_digest", "method", "seed", "turns")
    record = {field: getattr(before, field) for field in copied} | {
        "key": key,
        "finite": finite,
        "log": [{"first": 1, "last": before.edit_count, "after": name, **changed.log}],
        "norms": {name: Norms.of(tensor, changed.base[name]) for name, tensor in sorted(changed.tensors.items())},
    }
    costs = Costs(
        seconds=time.perf_counter() - begun, num_edits=0, peak_memory_bytes=peak_bytes(), ended_at=datetime.now(UTC)
    )
    logger.info("made %s from the checkpoint at %d edits", name, before.edit_count)
    written = write_checkpoint(step.folder, tensors=changed.tensors, state={}, record=record, costs=costs)
    sync(step.folder)
    return written


def _key(step: Step, settings: Settings, sources: SourceIndex) -> str:
    """Digest of the base weights, the edited tensors, the operation and the code that determine a checkpoint."""
    record, operation = step.origin.record, step.operation
    trains = operation.kind == "finetune"
    return sources.key(
        changing,
        weights=record.model_digest,
        dtype=settings.model.dtype,
        edited=digest({name: tensor.sha256 for name, tensor in record.tensors.items()}),
        operation=operation.name,
        tuning=settings.tuning.model_dump(mode="json", exclude={"corpus"}) if trains else {},
        texts=texts_digest(settings.texts[operation.name]) if trains else "",
    )
