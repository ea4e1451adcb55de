"""Checkpoints: the model at an edit count, stored as the edited tensors themselves.

A checkpoint is a folder. `weights.safetensors` holds the edited tensors under their Hugging Face names, exact in the
model's dtype, so base model + checkpoint = edited model, bit for bit. `state.safetensors` holds the
method's state, if it has one. `checkpoint.json` records their origin, with a checksum of each tensor and of itself; it
is the same, byte for byte, whether or not the run was interrupted. `costs.json` holds time and memory, which are not.

A checkpoint may be pruned: its tensors are removed, and its records stay and say so.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from overedit.editing.storage.atomic import replace_file, replace_folder
from overedit.editing.storage.checksums import sealed, unsealed
from overedit.editing.storage.disk_space import check_space
from overedit.editing.trajectory.records import CheckpointRecord, Costs, TensorRecord

logger = logging.getLogger(__name__)

MOST_BYTES = 256 << 20
"""Size limit of a `checkpoint.json`: room for the log of some hundred thousand turns."""
TENSOR_FILES = ("weights.safetensors", "state.safetensors")


class DamagedCheckpointError(ValueError):
    """A checkpoint with a file that is missing, unreadable or has another checksum."""


class PrunedCheckpointError(DamagedCheckpointError):
    """A checkpoint whose tensors were removed to save space."""


class Checkpoint(BaseModel):
    """A whole checkpoint on disk."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    record: CheckpointRecord
    costs: Costs

    def tensors(self) -> dict[str, torch.Tensor]:
        """The edited tensors, on the CPU, verified.

        Raises:
            DamagedCheckpointError: They differ from what was written.
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
    """Write a checkpoint atomically: into a temporary folder, flushed to the disk, then renamed.

    Args:
        folder: Its folder; an existing checkpoint there is replaced.
        tensors: Parameter name -> edited tensor, in the model's dtype.
        state: The method's state.
        record: The fields of `CheckpointRecord` other than the records of the tensors.
        costs: Time and memory of the edits.

    Raises:
        NoSpaceError: There is no room for it, or the disk became full; an existing checkpoint is untouched.
        OSError: The disk is not writable.
    """
    whole = CheckpointRecord(
        **record,
        tensors={name: TensorRecord.of(tensor) for name, tensor in sorted(tensors.items())},
        state={name: TensorRecord.of(tensor) for name, tensor in sorted(state.items())},
    )
    check_space(folder, num_bytes(tensors) + num_bytes(state), "this checkpoint")
    with replace_folder(folder) as temporary:
        _write_files(temporary, tensors, state, whole, costs)
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
    except SafetensorError as error:  # safetensors reports system errors in its message
        number = errno.ENOSPC if f"os error {errno.ENOSPC}" in str(error) else errno.EIO
        raise OSError(number, str(error)) from error
    (folder / "checkpoint.json").write_bytes(sealed(record.model_dump_json(indent=1) + "\n"))
    (folder / "costs.json").write_text(costs.model_dump_json(indent=1) + "\n")


def num_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bytes of tensors on the disk, without the file's header."""
    return sum(tensor.nbytes for tensor in tensors.values())


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint's records; its tensors are read and verified on access.

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


def whole_checkpoints(
    root: Path, key_at: Callable[[int], str], *, or_pruned: bool = False, among: Container[int] | None = None
) -> Iterator[Checkpoint]:
    """The whole checkpoints of a trajectory in `root`, newest first; a damaged one is skipped with a warning.

    Args:
        root: The trajectory's checkpoint folder; it need not exist.
        key_at: Edit count -> key; checkpoints with another key are skipped.
        or_pruned: Also yield checkpoints whose tensors were removed.
        among: The edit counts to look for; all by default.
    """
    folders = (folder for folder in root.glob("[0-9]*") if folder.name.isdecimal())
    for folder in sorted(folders, reverse=True):
        if among is not None and int(folder.name) not in among:
            continue
        try:
            checkpoint = read_checkpoint(folder)
            count = checkpoint.record.edit_count
            if count != int(folder.name) or checkpoint.record.key != key_at(count):
                continue
            if not checkpoint.record.pruned:
                checkpoint.verify()
                yield checkpoint
            elif or_pruned:
                yield checkpoint
        except DamagedCheckpointError as error:
            logger.warning("passed over a damaged checkpoint: %s", error)


def prune_checkpoint(checkpoint: Checkpoint) -> None:
    """Remove a checkpoint's tensors and state; its record is marked first, so an interruption is harmless."""
    record = checkpoint.record.model_copy(update={"pruned": True})
    with replace_file(checkpoint.folder / "checkpoint.json") as stream:
        stream.write(sealed(record.model_dump_json(indent=1) + "\n"))
    for name in TENSOR_FILES:
        (checkpoint.folder / name).unlink(missing_ok=True)


def _content(path: Path) -> bytes:
    """Read a record's file; pipes and files above the size limit are refused."""
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
