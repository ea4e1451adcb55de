"""A checkpoint: the model at an edit count, kept as the edited tensors themselves.

A folder with three files. `weights.safetensors` holds the edited tensors under their Hugging Face names, exact in the
model's dtype, so base model + checkpoint = edited model, bit for bit. `state.safetensors` holds what the method carries
from turn to turn. `checkpoint.json` says what made them, with a checksum of each tensor and of itself; it is the same,
byte for byte, whether or not the run was interrupted. What the editing cost, which is not, lies beside it in
`costs.json`.

A checkpoint may be pruned: its records stay and say so, its tensors are gone.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from overedit.editing.model.weights import checksum
from overedit.editing.storage.atomic import replace_file, replace_folder
from overedit.editing.storage.checksums import sealed, unsealed
from overedit.editing.storage.disk_space import check_space

logger = logging.getLogger(__name__)

MOST_BYTES = 256 << 20
"""The most that is read of a `checkpoint.json`: the log of some hundred thousand turns."""
TENSOR_FILES = ("weights.safetensors", "state.safetensors")


class DamagedCheckpointError(ValueError):
    """A checkpoint folder that is not whole: a file is missing, unreadable or has another checksum."""


class PrunedCheckpointError(DamagedCheckpointError):
    """A checkpoint whose tensors were removed to save space."""


class TensorRecord(BaseModel):
    """What is known of a stored tensor without opening it."""

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
    """Of edited minus base."""

    @classmethod
    def of(cls, edited: torch.Tensor, base: torch.Tensor) -> Norms:
        """The norms of an edited tensor beside its pristine values."""
        edited, base = edited.double(), base.double()
        return cls(weight=float(edited.norm()), base=float(base.norm()), update=float((edited - base).norm()))


class CheckpointRecord(BaseModel):
    """The content of `checkpoint.json`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="constants"
    )  # a model that broke has norms that are no numbers, and they must be read as what they are

    format: int = 1
    edit_count: int
    """Edits applied so far."""
    key: str
    """Digest of all that determines the trajectory: base weights, requests, configuration, code."""
    model: str
    """Folder or hub name of the base model."""
    model_digest: str
    """Digest of the base model's weights."""
    method: dict[str, Any]
    """The method's configuration."""
    seed: int
    """Each turn's own seed is derived from this one and the turn's first and last edit: it is all the random state."""
    turns: int
    """Calls of the method so far."""
    finite: bool
    """False where an edited tensor holds a NaN or an infinity; the trajectory ends there."""
    log: list[dict[str, Any]]
    """What the method reported, one entry a turn since the checkpoint before."""
    norms: dict[str, Norms]
    tensors: dict[str, TensorRecord]
    state: dict[str, TensorRecord]
    pruned: bool = False
    """Whether the tensors and the state were removed since."""


class Costs(BaseModel):
    """The content of `costs.json`: what the edits since the checkpoint before took."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    seconds: float
    num_edits: int
    peak_memory_bytes: int
    turn_seconds: tuple[float, ...] = ()
    """Of each turn, to the microsecond; beside the log and not in it, which is the same whenever it is made."""


class Checkpoint(BaseModel):
    """A whole checkpoint on disk."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    record: CheckpointRecord
    costs: Costs

    def tensors(self) -> dict[str, torch.Tensor]:
        """The edited tensors, on the CPU, verified.

        Raises:
            DamagedCheckpointError: They are not what was written.
            PrunedCheckpointError: They were removed.
        """
        self._check_not_pruned()
        return _verified(self.folder / "weights.safetensors", self.record.tensors)

    def state(self) -> dict[str, torch.Tensor]:
        """The method's state, on the CPU, verified; raises as `tensors` does."""
        self._check_not_pruned()
        return _verified(self.folder / "state.safetensors", self.record.state) if self.record.state else {}

    def verify(self) -> None:
        """Read all tensors and compare their checksums; raises as `tensors` does."""
        self.tensors()
        self.state()

    def _check_not_pruned(self) -> None:
        if self.record.pruned:
            raise PrunedCheckpointError(
                f"{self.folder} was pruned: its weights are gone; remove {self.folder.parent} to have it edited again"
            )


def checkpoint_folder(root: Path, edit_count: int) -> Path:
    """The folder of a trajectory's checkpoint: `00000100` below the trajectory's own."""
    return root / f"{edit_count:08d}"


def write_checkpoint(
    folder: Path,
    *,
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
    record: Mapping[str, Any],
    costs: Costs,
) -> Checkpoint:
    """Write a checkpoint whole or not at all: beside its place, flushed to the disk, then renamed into it.

    Args:
        folder: Where it shall lie; a checkpoint that is there already is replaced.
        tensors: Parameter name -> edited tensor, in the model's dtype.
        state: The method's state.
        record: The fields of `CheckpointRecord` beside the tensors' own records.
        costs: What the edits took.

    Raises:
        NoSpaceError: There is no room for it, or the disk became full; what was there before is untouched.
        OSError: The disk is not writable.
    """
    whole = CheckpointRecord(
        **record,
        tensors={name: TensorRecord.of(tensor) for name, tensor in sorted(tensors.items())},
        state={name: TensorRecord.of(tensor) for name, tensor in sorted(state.items())},
    )
    check_space(folder, num_bytes(tensors) + num_bytes(state), "this checkpoint")
    with replace_folder(folder) as beside:
        _write_files(beside, tensors, state, whole, costs)
    return Checkpoint(folder=folder, record=whole, costs=costs)


def _write_files(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
    record: CheckpointRecord,
    costs: Costs,
) -> None:
    try:
        for name, content in zip(TENSOR_FILES, (tensors, state), strict=True):
            if content or content is tensors:
                save_file(_stored(content), folder / name)
    except SafetensorError as error:  # its way to say what the system said
        number = errno.ENOSPC if f"os error {errno.ENOSPC}" in str(error) else errno.EIO
        raise OSError(number, str(error)) from error
    (folder / "checkpoint.json").write_bytes(sealed(record.model_dump_json(indent=1) + "\n"))
    (folder / "costs.json").write_text(costs.model_dump_json(indent=1) + "\n")


def num_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """What tensors take on the disk, but for the header."""
    return sum(tensor.nbytes for tensor in tensors.values())


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint's records; its tensors are read, and verified, when they are asked for.

    Raises:
        DamagedCheckpointError: The folder is not a whole checkpoint.
    """
    try:
        record = CheckpointRecord.model_validate_json(unsealed(_content(folder / "checkpoint.json")))
        costs = Costs.model_validate_json(_content(folder / "costs.json"))
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False, include_context=False)
        shown = "; ".join(f"{'.'.join(map(str, m['loc']))[:80]}: {m['msg']}" for m in mistakes[:3])
        raise DamagedCheckpointError(f"{folder} is not a whole checkpoint: {error.title}: {shown}") from error
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(f"{folder} is not a whole checkpoint: {error}") from error
    return Checkpoint(folder=folder, record=record, costs=costs)


def whole_checkpoints(root: Path, key: str, *, or_pruned: bool = False) -> Iterator[Checkpoint]:
    """The whole checkpoints of a trajectory below `root`, the newest first; a damaged one is left out with a warning.

    Args:
        root: The trajectory's checkpoint folder; it need not exist.
        key: Checkpoints with another key were made by something else and are left out.
        or_pruned: Whether those whose tensors were removed are among them.
    """
    for folder in sorted(root.glob("[0-9]*"), reverse=True):
        try:
            checkpoint = read_checkpoint(folder)
            if checkpoint.record.key != key:
                continue
            if not checkpoint.record.pruned:
                checkpoint.verify()
                yield checkpoint
            elif or_pruned:
                yield checkpoint
        except DamagedCheckpointError as error:
            logger.warning("passed over a damaged checkpoint: %s", error)


def prune_checkpoint(checkpoint: Checkpoint) -> None:
    """Remove a checkpoint's tensors and state; its record says so before they go, so a stop in between is harmless."""
    record = checkpoint.record.model_copy(update={"pruned": True})
    with replace_file(checkpoint.folder / "checkpoint.json") as stream:
        stream.write(sealed(record.model_dump_json(indent=1) + "\n"))
    for name in TENSOR_FILES:
        (checkpoint.folder / name).unlink(missing_ok=True)


def _content(path: Path) -> bytes:
    """A record's file; a pipe, which may never end, and one that no checkpoint writes, are not opened."""
    if not path.is_file():
        raise OSError(f"{path.name} is missing, or not a file")
    if path.stat().st_size > MOST_BYTES:
        raise OSError(f"{path.name} has more than {MOST_BYTES:,} bytes")
    return path.read_bytes()


def _verified(path: Path, records: Mapping[str, TensorRecord]) -> dict[str, torch.Tensor]:
    try:
        if not path.is_file():
            raise OSError("it is missing, or not a file")
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedCheckpointError(f"{path} cannot be read: {error}") from error
    if {name: TensorRecord.of(tensor) for name, tensor in tensors.items()} != dict(records):
        raise DamagedCheckpointError(f"{path} does not have the checksums of its checkpoint.json")
    return tensors


def _stored(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
