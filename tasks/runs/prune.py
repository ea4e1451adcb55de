"""Removing the weights of checkpoints that say little: what was measured of them stays, in the warehouse.

Of each trajectory that is complete, four are kept: the newest, the last planned, the one at which it broke, and the one
before that; of one that failed, which may be tried again, all. The others keep their records, which say that they were
pruned, so a run that is complete stays complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from overedit.editing.trajectory.checkpoint import (
    TENSOR_FILES,
    Checkpoint,
    DamagedCheckpointError,
    prune_checkpoint,
    read_checkpoint,
)
from overedit.tasks.runs.run import check_name
from overedit.tasks.system.locks import check_run_is_free, run_lock
from overedit.tasks.warehouse.views import literal
from overedit.tasks.warehouse.warehouse import Warehouse


class Pruning(NamedTuple):
    """What becomes of a trajectory's checkpoints."""

    name: str
    """`<trajectory>/order-<seed>`."""
    kept: tuple[int, ...]
    """Edit counts."""
    pruned: tuple[int, ...]
    num_bytes: int
    """What pruning them frees."""


class _End(NamedTuple):
    planned: int
    collapse_at: int | None
    failed: bool


def prune_run(home: Path, run: str, *, dry_run: bool = False) -> list[Pruning]:
    """Remove the tensors of a run's checkpoints that are not worth keeping; a second time there are none.

    Args:
        home: The folder in which `warehouse/` and `runs/` lie.
        run: The run's name.
        dry_run: Say what would be done, and do nothing.

    Raises:
        ValueError: There is no such run, or one of its trajectories has not ended. Nothing has been removed then.
        HeldError: The run is going on.
    """
    check_name(run)
    folder = home / "runs" / run
    if not folder.is_dir():
        raise ValueError(f"there is no run {run!r} in {(home / 'runs').resolve()}; see overedit status")
    if dry_run:
        check_run_is_free(folder)
        return _prune(folder, _ended(home, run), dry_run=True)
    with run_lock(folder):
        return _prune(folder, _ended(home, run))


def _prune(folder: Path, ended: Mapping[str, _End], *, dry_run: bool = False) -> list[Pruning]:
    found = sorted(path for path in folder.glob("*/order-*") if path.is_dir())
    for path in found:
        _check_ended(path, ended)
    prunings = []
    for path in found:
        name = f"{path.parent.name}/{path.name}"
        checkpoints = _checkpoints(path)
        counts = [checkpoint.record.edit_count for checkpoint in checkpoints]
        end = ended[name]
        kept = tuple(counts) if end.failed else worth_keeping(counts, planned=end.planned, collapse_at=end.collapse_at)
        going = [c for c in checkpoints if c.record.edit_count not in kept and _num_bytes([c])]
        num_bytes = _num_bytes(going)
        for checkpoint in () if dry_run else going:
            prune_checkpoint(checkpoint)
        prunings.append(Pruning(name, kept, tuple(c.record.edit_count for c in going), num_bytes))
    return prunings


def prune_table(prunings: Sequence[Pruning]) -> Table:
    """One row a trajectory."""
    table = Table("trajectory", "kept", "pruned", "MB freed")
    for name, kept, pruned, num_bytes in prunings:
        table.add_row(name, _listed(kept), _listed(pruned), f"{num_bytes / 1e6:,.1f}")
    return table


def worth_keeping(edit_counts: Sequence[int], *, planned: int, collapse_at: int | None) -> tuple[int, ...]:
    """The newest edit count, the last planned, and the two between which the trajectory broke.

    Args:
        edit_counts: Those that have a checkpoint.
        planned: The last planned one.
        collapse_at: The first at which a criterion of collapse was met; None where it was none.
    """
    before = [count for count in edit_counts if collapse_at is not None and count < collapse_at]
    wanted = {max(edit_counts, default=0), planned, collapse_at, max(before, default=0)}
    return tuple(sorted(count for count in set(edit_counts) if count in wanted))


def _ended(home: Path, run: str) -> dict[str, _End]:
    """Trajectory -> the last edit count planned, and where it broke; only of those that have ended."""
    if not (home / "warehouse").is_dir():
        return {}
    rows = Warehouse(home / "warehouse").query(
        "SELECT trajectory, order_seed, planned_edit_count, collapse_at, status = 'failed' AS failed "
        f"FROM collapse_point WHERE run = {literal(run)} AND status IS NOT NULL"
    )
    return {
        f"{row['trajectory']}/order-{row['order_seed']}": _End(
            row["planned_edit_count"], row["collapse_at"], row["failed"]
        )
        for row in rows.to_pylist()
    }


def _check_ended(folder: Path, ended: Iterable[str]) -> None:
    """Refuse a trajectory that was stopped: it goes on from its checkpoints."""
    name = f"{folder.parent.name}/{folder.name}"
    if name not in ended or (folder / "interim").is_dir():
        raise ValueError(f"{name} has not ended; overedit run continues it, and it can be pruned then")


def _checkpoints(folder: Path) -> list[Checkpoint]:
    """The checkpoints of a trajectory that can be read; a damaged one is left as it is, for `overedit verify`."""
    found = []
    for path in sorted(folder.glob("[0-9]*")):
        if path.is_symlink():  # what it leads to is not this run's
            continue
        try:
            found.append(read_checkpoint(path))
        except DamagedCheckpointError:
            continue
    return found


def _num_bytes(checkpoints: Iterable[Checkpoint]) -> int:
    files = [checkpoint.folder / name for checkpoint in checkpoints for name in TENSOR_FILES]
    return sum(path.stat().st_size for path in files if path.is_file())


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(f"{count:,}" for count in counts) or "-"
