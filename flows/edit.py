"""A single editing job: read and check the input, edit, and write the checkpoint into a folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from overedit.editing.methods.base import MethodConfig
from overedit.editing.methods.registry import AnyMethod
from overedit.editing.requests import EditRequest
from overedit.editing.trajectory.checkpoint import Checkpoint
from overedit.flows.config.loading import validated, with_settings
from overedit.flows.config.models import with_preset
from overedit.flows.plan import check_methods, check_requests
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DatasetOptions
from overedit.tasks.editing_job.job import EditingJob, run_editing_job
from overedit.tasks.models.placement import Placement
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.pocket_world.model import model_folder
from overedit.tasks.system.locks import file_lock
from overedit.tasks.system.progress import shown


class EditConfig(BaseModel):
    """The keys of `overedit edit --set`; a method's own fields are below `method`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str
    revision: str | None = None
    dtype: str = "auto"
    method: AnyMethod
    dataset: DatasetOptions
    num_edits: int | None = Field(default=None, ge=1)
    """How many of the requests are edited; all by default."""
    turn_size: int = Field(default=100, ge=1)
    seed: int = 0
    editing: Placement = Placement()
    """Where the model's weights lie while it is edited."""


def edit_file(
    model: str, method: str, requests: Path, out: Path, *, dataset: str, settings: Sequence[str] = ()
) -> Checkpoint:
    """Edit a model with the requests of a file, and write the checkpoint into `out`.

    Raises:
        ValueError: Bad input; nothing has been written then.
        HeldError: Another process is writing a checkpoint there.
    """
    config = validated(EditConfig, _content(model, method, requests, dataset, settings), where="overedit edit")
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / "checkpoint.json").is_file():
        raise ValueError(f"--out: {out} is there and is not an earlier checkpoint; give an empty or a new folder")
    everything = load_requests(config.dataset).requests
    count = config.num_edits or len(everything)
    if count > len(everything):
        raise ValueError(f"num_edits: {count} edits are asked for, but {requests} holds {len(everything)} requests")
    reference = ModelReference(config.model, config.revision, config.dtype)
    check_methods(reference, (config.method,))
    check_requests(reference, (config.method,), everything.first(count))
    job = EditingJob(
        model=reference,
        method=config.method,
        edit_counts=(count,),
        turn_size=config.turn_size,
        seed=config.seed,
        placement=config.editing,
    )
    working_folder = out.with_name(f".{out.name}.trajectory")
    with file_lock(out.with_name(f".{out.name}.lock"), f"--out {out}"):
        try:
            (checkpoint,) = run_editing_job(job, everything, working_folder, show=shown)
            shutil.rmtree(out, ignore_errors=True)
            checkpoint.folder.rename(out)
        finally:
            shutil.rmtree(working_folder, ignore_errors=True)
    return checkpoint.model_copy(update={"folder": out})


class _Method(BaseModel):
    method: AnyMethod


def method_config(method: str | Mapping[str, Any] | MethodConfig, model: str) -> MethodConfig:
    """A method's configuration, completed by the published preset for a model.

    Args:
        method: Its name, its settings with the key `method`, or the configuration itself.
        model: The model's hub name or folder.

    Raises:
        ValueError: A setting is wrong or missing; with the key, the value and what is accepted.
    """
    if isinstance(method, BaseModel):
        return method
    name = "pocket" if Path(model) == model_folder() else model
    content = with_preset(dict(method) if isinstance(method, Mapping) else method, name)
    return validated(_Method, {"method": content}, where="edit").method


def request_records(requests: Iterable[EditRequest | Mapping[str, Any]]) -> list[EditRequest]:
    """Edit requests from mappings of their fields; those without a `case_id` are numbered from 1.

    Raises:
        ValueError: A field is wrong or missing, or there is no request.
    """
    records = []
    for number, request in enumerate(requests, start=1):
        if not isinstance(request, EditRequest):
            content = {"case_id": str(number)} | dict(request)
            request = validated(EditRequest, content, where=f"requests: number {number}")
        records.append(request)
    if not records:
        raise ValueError("requests: at least one is needed, got none")
    return records


def _content(model: str, method: str, requests: Path, dataset: str, settings: Sequence[str]) -> dict[str, Any]:
    """The configuration; a setting that is not a key of the job, as in `--set epochs=5`, is one of the method."""
    jobs = set(EditConfig.model_fields)
    keys = [s if s.partition("=")[0].split(".")[0] in jobs else f"method.{s}" for s in settings]
    content = {"model": model, "dataset": {"name": dataset, "path": str(requests)}, "method": {"method": method}}
    content = with_settings(content, keys)
    return content | {"method": with_preset(content["method"], str(content["model"]))}
