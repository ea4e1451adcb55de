"""Pruning: removal of the weights of checkpoints that are no longer needed; their rows stay in the warehouse.

A complete trajectory keeps up to four checkpoints: the newest, the last planned one, the one at which it collapsed, and
the one before. Those after one more step (`after`), which can be made again, keep no weights. A failed trajectory,
which may be tried again, keeps all. Pruned checkpoints keep their records, which say so; a complete run stays complete.
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
from overedit.editing.trajectory.editor import LINE
from overedit.tasks.runs.derived import derived_folders
from overedit.tasks.runs.run import check_name
from overedit.tasks.runs.run_lock import check_run_is_free, run_lock
from overedit.tasks.storage.outline import outline
from overedit.tasks.storage.working_copy import is_there, shown_path
from overedit.tasks.warehouse.views import literal
from overedit.tasks.warehouse.warehouse import Warehouse


class Pruning(NamedTuple):
    """The result of pruning a trajectory: edit counts of the checkpoints that keep and that lose their weights."""

    name: str
    """`<trajectory>/order-<seed>`, for checkpoints after one more step with `/after/<step>`."""
    kept: tuple[int, ...]
    pruned: tuple[int, ...]
    num_bytes: int
    """Size of the removed files."""


class _End(NamedTuple):
    planned: int
    collapse_at: int | None
    failed: bool


def prune_run(home: Path, run: str, *, dry_run: bool = False) -> list[Pruning]:
    """Remove the tensors of a run's checkpoints that are not worth keeping; repeating it changes nothing.

    Args:
        home: The folder with `warehouse/` and `runs/`.
        run: The run's name.
        dry_run: Return what would be removed, and remove nothing.

    Raises:
        ValueError: The run does not exist, or one of its trajectories has not ended; nothing is removed.
        HeldError: Another process works on the run.
    """
    check_name(run)
    folder = home / "runs" / run
    if not is_there(folder):
        raise ValueError(f"there is no run {run!r} in {shown_path((home / 'runs').resolve())}; see overedit status")
    if dry_run:
        check_run_is_free(folder)
        with outline(home, [f"runs/{run}"], with_records=True) as seen:
            return _prune(seen / "runs" / run, _ended(home, run), dry_run=True)
    with run_lock(folder), outline(home, [f"runs/{run}"], with_records=True) as seen:
        return _prune(seen / "runs" / run, _ended(home, run))


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
        removed = [c for c in checkpoints if c.record.edit_count not in kept and _num_bytes([c])]
        num_bytes = _num_bytes(removed)
        for checkpoint in () if dry_run else removed:
            prune_checkpoint(checkpoint)
        prunings.append(Pruning(name, kept, tuple(c.record.edit_count for c in removed), num_bytes))
        if not end.failed:
            prunings += [_prune_derived(derived, name, dry_run=dry_run) for derived in derived_folders(path)]
    return prunings


def _prune_derived(folder: Path, trajectory: str, *, dry_run: bool) -> Pruning:
    """Remove the weights of all checkpoints after one more step."""
    found = [checkpoint for checkpoint in _checkpoints(folder) if _num_bytes([checkpoint])]
    num_bytes = _num_bytes(found)
    for checkpoint in () if dry_run else found:
        prune_checkpoint(checkpoint)
    counts = tuple(checkpoint.record.edit_count for checkpoint in found)
    return Pruning(f"{trajectory}/{folder.parent.name}/{folder.name}", (), counts, num_bytes)


def prune_table(prunings: Sequence[Pruning]) -> Table:
    """The table of `overedit prune`, one row per trajectory."""
    table = Table("trajectory", "kept", "pruned", "MB freed")
    for name, kept, pruned, num_bytes in prunings:
        table.add_row(name, _listed(kept), _listed(pruned), f"{num_bytes / 1e6:,.1f}")
    return table


def worth_keeping(edit_counts: Sequence[int], *, planned: int, collapse_at: int | None) -> tuple[int, ...]:
    """The edit counts to keep: the newest, the last planned, and the two around the collapse.

    Args:
        edit_counts: The edit counts of the trajectory's checkpoints.
        planned: The last planned edit count.
        collapse_at: The first edit count that meets a criterion of collapse; None without collapse.
    """
    before = [count for count in edit_counts if collapse_at is not None and count < collapse_at]
    wanted = {max(edit_counts, default=0), planned, collapse_at, max(before, default=0)}
    return tuple(sorted(count for count in set(edit_counts) if count in wanted))


def _ended(home: Path, run: str) -> dict[str, _End]:
    """Trajectory -> its end; only trajectories that have ended."""
    if not is_there(home / "warehouse"):
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
    """Refuse a trajectory that was interrupted: it continues from its checkpoints."""
    name = f"{folder.parent.name}/{folder.name}"
    if name not in ended or (folder / LINE).is_dir():
        raise ValueError(f"{name} has not ended; overedit run continues it, and it can be pruned then")


def _checkpoints(folder: Path) -> list[Checkpoint]:
    """The readable checkpoints of a trajectory; damaged ones are left to `overedit verify`."""
    found = []
    for path in sorted(folder.glob("[0-9]*")):
        if path.is_symlink():  # its target belongs to another run
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
