"""A checkpoint to measure: where it is, what it is compared with, and what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from overedit.editing.storage.checksums import digest
from overedit.editing.trajectory.checkpoint import Checkpoint, read_checkpoint
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.runs.run import BASE, TrajectoryPoint
from overedit.tasks.storage.working_copy import pull
from overedit.tasks.system.stage_key import SourceIndex


class Questions(NamedTuple):
    """The questions of a checkpoint that are stored together."""

    part: str
    """The name of their part of the rows."""
    edit_counts: tuple[int, ...]
    """Of the pristine model: the edit counts at which they will be asked again."""
    asked_before: tuple[int, ...]
    """Of the pristine model: edit counts whose questions are in other parts."""


@dataclass(frozen=True)
class MeasuredCheckpoint:
    """A checkpoint to measure, as it is on the disk; without a folder it is the pristine model."""

    point: TrajectoryPoint
    requests: RequestStore
    """The edits of the whole run, in order."""
    overwritten: Mapping[str, str]
    edit_counts: tuple[int, ...]
    """The run's edit counts: the pristine model is asked what any of them will be asked."""
    folder: Path | None
    model_digest: str
    sources: SourceIndex | None = None
    """Keeps parsed source files between stage keys; without one each key parses them anew."""
    rounds: tuple[tuple[int, ...], ...] = ()
    """The run's edit counts, those that were known together in one tuple; all in one by default."""

    @cached_property
    def checkpoint(self) -> Checkpoint | None:
        """Its records; its tensors are read by the engine.

        Raises:
            DamagedCheckpointError: The folder is not a whole checkpoint.
        """
        if self.folder is None:
            return None
        pull(self.folder)
        return read_checkpoint(self.folder)

    def at(self, point: TrajectoryPoint, folder: Path) -> MeasuredCheckpoint:
        """Another checkpoint of the same run, of which the same is asked."""
        return replace(self, point=point, folder=folder)

    @property
    def is_last(self) -> bool:
        """Whether the trajectory ends here."""
        return self.point.edit_count == self.edit_counts[-1] or not self.is_finite

    @property
    def weights(self) -> str:
        """Digest of the measured weights."""
        tensors = self.checkpoint.record.tensors if self.checkpoint else {}
        return digest([self.model_digest, {name: record.sha256 for name, record in tensors.items()}])

    @property
    def is_finite(self) -> bool:
        """Whether all weights are finite."""
        return self.checkpoint is None or self.checkpoint.record.finite

    @property
    def base(self) -> TrajectoryPoint:
        """The point of the pristine model's rows."""
        run, order_seed = self.point.run, self.point.order_seed
        return TrajectoryPoint(run=run, trajectory=BASE, method="none", order_seed=order_seed, edit_count=0)

    @property
    def questions(self) -> list[Questions]:
        """What is asked, in the parts in which it is stored: of the pristine model one for each round."""
        if self.checkpoint is not None:
            return [Questions("", (), ())]
        rounds = self.rounds or (self.edit_counts,)
        earlier = [tuple(count for some in rounds[:index] for count in some) for index in range(len(rounds))]
        names = ["", *(f"round {index}" for index in range(2, len(rounds) + 1))]
        return [Questions(name, counts, before) for name, counts, before in zip(names, rounds, earlier, strict=True)]

    @property
    def before(self) -> TrajectoryPoint:
        """The point of the trajectory's previous checkpoint; before the first it is the pristine model's."""
        count = max((count for count in self.edit_counts if count < self.point.edit_count), default=0)
        return self.point.model_copy(update={"edit_count": count}) if count else self.base
