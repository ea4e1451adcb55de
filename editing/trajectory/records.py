"""What is recorded of a checkpoint: its origin, its tensors and their norms (`checkpoint.json`), and its costs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict

from overedit.editing.model.weights import checksum


class TensorRecord(BaseModel):
    """Checksum, shape and dtype of a stored tensor."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, tensor: torch.Tensor) -> TensorRecord:
        """The record of a tensor."""
        return cls(sha256=checksum(tensor), shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))


class Norms(BaseModel):
    """Frobenius norms of an edited tensor, in float64."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    weight: float
    base: float
    update: float
    """Norm of edited minus base."""

    @classmethod
    def of(cls, edited: torch.Tensor, base: torch.Tensor) -> Norms:
        """The norms of an edited tensor and its pristine values."""
        edited, base = edited.double(), base.double()
        return cls(weight=float(edited.norm()), base=float(base.norm()), update=float((edited - base).norm()))


class CheckpointRecord(BaseModel):
    """The content of `checkpoint.json`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="constants"
    )  # a broken model has norms of NaN or infinity, which must survive the round trip

    format: int = 1
    edit_count: int
    """Edits applied so far."""
    branched_from: int | None = None
    """On a branch: the edit count at which it left the main line; it is not continued from. None on the main line."""
    schedule: Literal["turns", "restart", "continue"] = "turns"
    """`turns`: each turn takes new edits. A cumulative method takes all edits so far in every turn: it restarts from
    the pristine weights, or continues from those of the turn before."""
    key: str
    """Digest of everything that determines the checkpoint: base weights, requests, configuration, code."""
    model: str
    """Folder or hub name of the base model."""
    model_digest: str
    """Digest of the base model's weights."""
    method: dict[str, Any]
    """The method's configuration."""
    seed: int
    """The only random state: each turn's seed is derived from it and from the turn's first and last edit."""
    turns: int
    """Calls of the method so far."""
    finite: bool
    """False where an edited tensor holds a NaN or an infinity; the trajectory ends there."""
    log: list[dict[str, Any]]
    """The method's log, one entry per turn since the previous checkpoint."""
    norms: dict[str, Norms]
    tensors: dict[str, TensorRecord]
    state: dict[str, TensorRecord]
    pruned: bool = False
    """Whether the tensors and the state have been removed."""


class Costs(BaseModel):
    """The content of `costs.json`: time and memory of the edits since the previous checkpoint."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    seconds: float
    num_edits: int
    peak_memory_bytes: int
    turn_seconds: tuple[float, ...] = ()
    """Seconds of each turn, to the microsecond; not in the log, which is the same in every run."""
    ended_at: datetime | None = None
    """When the last of the edits was done."""
