"""One editing job from the command line: read, check, edit, and leave the checkpoint in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from overedit.editing.methods import MethodConfig
from overedit.editing.trajectory.checkpoint import Checkpoint
from overedit.flows.config.loading import validated, with_settings
from overedit.flows.config.models import with_preset
from overedit.flows.plan import check_corpora, check_model, check_requests
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DatasetOptions
from overedit.tasks.editing_job.job import EditingJob, run_editing_job
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.system.locks import file_lock
from overedit.tasks.system.progress import shown


class EditConfig(BaseModel):
    """What `overedit edit` can be told with `--set`; a method's own fields stand below `method`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str
    revision: str | None = None
    dtype: str = "auto"
    method: MethodConfig
    dataset: DatasetOptions
    num_edits: int | None = Field(default=None, ge=1)
    """How many of the requests are edited; all by default."""
    turn_size: int = Field(default=100, ge=1)
    seed: int = 0


def edit_file(
    model: str, method: str, requests: Path, out: Path, *, dataset: str, settings: Sequence[str] = ()
) -> Checkpoint:
    """Edit a model with the requests of a file, and leave the checkpoint's files in `out`.

    Raises:
        ValueError: Bad input; nothing has been written then.
        HeldError: Another process is about to leave its checkpoint there.
    """
    config = validated(EditConfig, _content(model, method, requests, dataset, settings), where="overedit edit")
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / "checkpoint.json").is_file():
        raise ValueError(f"--out: {out} is there and is not an earlier checkpoint; give an empty or a new folder")
    everything = load_requests(config.dataset).requests
    count = config.num_edits or len(everything)
    if count > len(everything):
        raise ValueError(f"num_edits: {count} edits are asked for, but {requests} holds {len(everything)} requests")
    reference = ModelReference(config.model, config.revision, config.dtype)
    check_model(reference, (config.method,))
    check_requests(reference, (config.method,), everything.first(count))
    check_corpora(reference, (config.method,))
    job = EditingJob(
        model=reference,
        method=config.method,
        edit_counts=(count,),
        turn_size=config.turn_size,
        seed=config.seed,
    )
    beside = out.with_name(f".{out.name}.trajectory")
    with file_lock(out.with_name(f".{out.name}.lock"), f"--out {out}"):
        try:
            (checkpoint,) = run_editing_job(job, everything, beside, show=shown)
            shutil.rmtree(out, ignore_errors=True)
            checkpoint.folder.rename(out)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return checkpoint.model_copy(update={"folder": out})


def _content(model: str, method: str, requests: Path, dataset: str, settings: Sequence[str]) -> dict[str, Any]:
    """The configuration; `--set epochs=5` means the method's field where there is no such key of the job."""
    jobs = set(EditConfig.model_fields)
    keys = [s if s.partition("=")[0].split(".")[0] in jobs else f"method.{s}" for s in settings]
    content = {"model": model, "dataset": {"name": dataset, "path": str(requests)}, "method": {"method": method}}
    content = with_settings(content, keys)
    return content | {"method": with_preset(content["method"], str(content["model"]))}
