"""Checkpoints that no method made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from overedit.editing.trajectory.checkpoint import Checkpoint, write_checkpoint
from overedit.editing.trajectory.records import Costs, Norms

WriteCheckpoint = Callable[[Mapping[str, torch.Tensor]], Path]
"""Writes tensors as a checkpoint folder."""


def write_made_up(
    folder: Path, tensor: torch.Tensor, edit_count: int, state: Mapping[str, torch.Tensor], **more: Any
) -> Checkpoint:
    """Write it; `more` goes into its record."""
    record: dict[str, Any] = {
        "edit_count": edit_count,
        "key": "k",
        "model": "m",
        "model_digest": "d",
        "method": {},
        "seed": 0,
        "turns": 1,
        "finite": True,
        "log": [],
        "norms": {"w": Norms.of(tensor, tensor)},
        **more,
    }
    costs = Costs(seconds=0, num_edits=1, peak_memory_bytes=0)
    return write_checkpoint(folder, tensors={"w": tensor}, state=state, record=record, costs=costs)


def write_tensors(folder: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    """Write tensors as a checkpoint at one edit -> its folder."""
    record: dict[str, Any] = {
        "edit_count": 1,
        "key": "test",
        "model": "small",
        "model_digest": "0",
        "method": {},
        "seed": 0,
        "turns": 1,
        "finite": True,
        "log": [],
        "norms": {name: Norms(weight=0, base=0, update=0) for name in tensors},
    }
    costs = Costs(seconds=0, num_edits=1, peak_memory_bytes=0)
    write_checkpoint(folder, tensors=tensors, state={}, record=record, costs=costs)
    return folder
