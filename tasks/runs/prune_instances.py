"""Removal of the rows of old instances; the record that they happened, and how they compared, stays."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from overedit.tasks.runs.instances import baseline_of, instances_of
from overedit.tasks.runs.run import check_name
from overedit.tasks.runs.run_lock import check_run_is_free, run_lock
from overedit.tasks.storage.outline import outline
from overedit.tasks.warehouse.layout import HISTORY, folder_name
from overedit.tasks.warehouse.tables import RESULTS
from overedit.tasks.warehouse.warehouse import Warehouse


class PrunedInstances(NamedTuple):
    """What was removed."""

    instances: tuple[str, ...]
    """Those whose rows are gone."""
    num_files: int
    num_bytes: int


def prune_instances(home: Path, run: str, *, keep: int, dry_run: bool = False) -> PrunedInstances:
    """Remove the rows of all but the newest instances of a run, and the baseline's; repeating it changes nothing.

    Rows that a kept instance shares with a removed one stay. So do the tables `instances` and `gates`.

    Args:
        home: The folder with `warehouse/`.
        run: The run's name.
        keep: How many of the newest instances keep their rows.
        dry_run: Return what would be removed, and remove nothing.

    Raises:
        ValueError: The run has no instance.
        HeldError: Another process works on the run.
    """
    check_name(run)
    folder = home / "runs" / run
    if dry_run:
        check_run_is_free(folder)
        return _prune(home, run, keep, dry_run=True)
    with run_lock(folder):
        return _prune(home, run, keep, dry_run=False)


def _prune(home: Path, run: str, keep: int, *, dry_run: bool) -> PrunedInstances:
    folders = [f"{HISTORY}/{table}/{folder_name(run)}" for table in RESULTS] + [f"instance_files/{folder_name(run)}"]
    with outline(home / "warehouse", folders) as root:
        return _prune_files(Warehouse(home / "warehouse"), root, run, keep, dry_run=dry_run)


def _prune_files(warehouse: Warehouse, root: Path, run: str, keep: int, *, dry_run: bool) -> PrunedInstances:
    names = [row["instance"] for row in instances_of(warehouse, run)]
    if not names:
        raise ValueError(f"run: {run!r} has no instance in {warehouse.root}; see overedit status")
    listed = warehouse.rows("instance_files", {"run": run})
    kept = {*names[-keep:], baseline_of(warehouse, run)} if keep else {baseline_of(warehouse, run)}
    gone = tuple(name for name in names if name not in kept and any(row["instance"] == name for row in listed))
    wanted = {row["file"] for row in listed if row["instance"] in kept}
    old = [path for table in RESULTS for path in (root / HISTORY / table / folder_name(run)).rglob("*.parquet")]
    files = [path for path in old if path.name not in wanted]
    lists = [path for name in gone for path in (root / "instance_files" / folder_name(run) / name).rglob("*.parquet")]
    found = PrunedInstances(gone, len(files), sum(path.stat().st_size for path in files))
    for path in () if dry_run else (*lists, *files):  # the lists first: a view must not miss files that a list names
        path.unlink()
    return found
