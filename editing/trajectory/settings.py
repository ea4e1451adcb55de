"""What a trajectory is made from, where it stops, and where it is written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import NamedTuple

from overedit.editing.trajectory.interruption import EVERY_TEN_MINUTES, CheckpointPolicy


class Schedule(NamedTuple):
    """The edit counts of the checkpoints, and the edits per call of the method."""

    edit_counts: tuple[int, ...]
    """Increasing, above 0: a checkpoint is written at each."""
    turn_size: int
    """The edits of each turn of the main line; cumulative methods take all edits so far in one turn."""
    seed: int = 0

    def before(self, count: int) -> int:
        """The scheduled count before this one; 0 before the first."""
        return max((each for each in self.edit_counts if each < count), default=0)

    def line_end(self, count: int, *, restarts: bool) -> int:
        """The end of the main line's last turn within a count; 0 where every count starts from the pristine model."""
        return 0 if restarts else count // self.turn_size * self.turn_size

    def states(self, counts: Sequence[int], known: Container[int] = (), *, restarts: bool) -> int:
        """The most checkpoints and states of the main line on the disk at once, while these counts are reached.

        Args:
            counts: Edit counts of new checkpoints.
            known: Those of checkpoints that are there already.
            restarts: Whether every count starts from the pristine model.
        """
        branched = {self.line_end(count, restarts=restarts) for count in counts}
        return len(counts) + len([count for count in branched - {0, *counts} if count not in known]) + 1


class Source(NamedTuple):
    """What a trajectory is made from; recorded in its checkpoints."""

    key_at: Callable[[int], str]
    """Edit count -> digest of what determines the checkpoint there."""
    model: str
    model_digest: str


def unwatched(_: Path) -> None:
    """Do nothing with a folder that has changed."""


class TrajectorySettings(NamedTuple):
    """Where a trajectory stops, what it is made from, and where and when it is written."""

    schedule: Schedule
    source: Source
    folder: Path
    """Holds the checkpoints, one folder per edit count, and in `line/` states of the main line to continue from."""
    policy: CheckpointPolicy = EVERY_TEN_MINUTES
    """When to write a state of the main line between two counts."""
    continues: bool = False
    """Whether more counts may be asked for later: the states of the main line are kept then."""
    changed: Callable[[Path], None] = unwatched
    """Called with the folder of each checkpoint and state that was written or removed, at once."""


def turn_seed(seed: int, first: int, end: int) -> int:
    """The seed of the turn that applies the edits after `first` up to `end`: 63 bits of a SHA-256."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{first}:{end}".encode()).digest()[:8], "big") >> 1
