"""Verification of checkpoints and warehouse files against damage.

The tensors of a checkpoint are compared with the checksums in its record, and these with the checksums in the
warehouse. A file of the warehouse is read completely and must have the columns of its table, rows of the partition that
its schema metadata name, the path of that partition, footer sums that match its rows, and its checksum.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from overedit.editing.trajectory.checkpoint import Checkpoint, DamagedCheckpointError, read_checkpoint
from overedit.tasks.runs.derived import folder_of_step
from overedit.tasks.runs.run import NAME
from overedit.tasks.storage.outline import downloaded
from overedit.tasks.storage.working_copy import fetch, is_folder, local_home, shown_path, sizes, url_of
from overedit.tasks.system.untrusted import shown_value
from overedit.tasks.warehouse.arrow_rows import conform
from overedit.tasks.warehouse.files import KEY, STAGE
from overedit.tasks.warehouse.layout import HISTORY, Partition, current_path, folder_name, stage_path
from overedit.tasks.warehouse.outcome_sums import from_footer, same_sums, sums_of
from overedit.tasks.warehouse.parquet_checksum import is_whole
from overedit.tasks.warehouse.tables import RESULTS, TABLES, after_table


class Damage(NamedTuple):
    """A defect of a file or folder."""

    path: Path
    what: str


class Verification(NamedTuple):
    """The result for one trajectory, or for one table of the warehouse."""

    name: str
    num_checked: int
    """Number of checkpoints or files."""
    num_bytes: int
    num_pruned: int
    damages: tuple[Damage, ...]


def verify(home: Path, what: str | None = None) -> list[Verification]:
    """Verify a run, a folder, or everything in a home.

    Args:
        home: The folder with `warehouse/` and `runs/`.
        what: A run's name, or a folder or URL: a checkpoint, a folder with checkpoints, or another home. None for the
            home.

    Raises:
        ValueError: Neither a run nor a folder, or nothing to verify in it.
    """
    if what is None or (re.fullmatch(NAME, what) and _has_run(home, what)):
        parts = _home(home, what)
    elif is_folder(folder := local_home(what, "what")):
        is_home = is_folder(folder / "runs") or is_folder(folder / "warehouse")
        parts = _home(folder, None) if is_home else _below(folder)
    else:
        raise ValueError(f"{shown_value(what)} is neither a run in {shown_path(home.resolve())} nor a folder")
    if not parts:
        raise ValueError(f"{what or shown_path(home.resolve())} holds neither checkpoints nor rows to check")
    return parts


def verify_table(parts: list[Verification]) -> Table:
    """The table of `overedit verify`, one row per trajectory or table of the warehouse."""
    table = Table("part", "checked", "pruned", "MB", "damaged")
    for part in parts:
        counts = (f"{part.num_checked:,}", str(part.num_pruned or "-"), f"{part.num_bytes / 1e6:,.1f}")
        table.add_row(part.name, *counts, str(len(part.damages) or "-"))
    return table


def _has_run(home: Path, run: str) -> bool:
    return is_folder(home / "runs" / run) or any(is_folder(home / "warehouse" / t / folder_name(run)) for t in TABLES)


def _home(home: Path, run: str | None) -> list[Verification]:
    if url_of(home) is not None:
        return list(_home_in_store(home, run))
    runs = home / "runs" if run is None else home / "runs" / run
    return [*_trajectories(runs, home=home), *_warehouse(home / "warehouse", run)]


def _home_in_store(home: Path, run: str | None) -> Iterator[Verification]:
    """The same of a home in a store: its rows are downloaded, and one trajectory after the other."""
    runs = Path("runs") if run is None else Path("runs") / run
    depth = 3 if run is None else 2  # of the folder of a trajectory, RUN/TRAJECTORY/ORDER
    trajectories = sorted(
        {Path(*parts[:depth]) for path in sizes(home / runs) if len(parts := Path(path).parts) > depth}
    )
    with TemporaryDirectory(prefix="overedit-") as name:
        here = Path(name)
        fetch(home / "warehouse", here / "warehouse")
        for trajectory in trajectories:
            fetch(home / runs / trajectory, here / runs / trajectory)
            for part in _trajectories(here / runs, home=here):
                yield _as_in_store(part, here, home)
            shutil.rmtree(here / "runs")
        for part in _warehouse(here / "warehouse", run):
            yield _as_in_store(part, here, home)


def _below(folder: Path) -> list[Verification]:
    """The trajectories in a folder that is no home."""
    with downloaded(folder) as here:
        return [_as_in_store(part, here, folder) for part in _trajectories(here, home=None)]


def _as_in_store(part: Verification, here: Path, there: Path) -> Verification:
    """A result with the places in the store instead of those of a download."""
    damages = (
        Damage(there / d.path.relative_to(here), d.what.replace(str(here), shown_path(there))) for d in part.damages
    )
    return part._replace(damages=tuple(damages))


def _trajectories(root: Path, *, home: Path | None) -> list[Verification]:
    """The trajectories with checkpoints in a folder or below it, each verified."""
    found: dict[Path, list[Path]] = {}
    candidates = {path.parent for name in ("checkpoint.json", "weights.safetensors") for path in root.rglob(name)}
    for folder in sorted(candidates):
        if not folder.name.startswith("."):  # a temporary folder of a writer
            found.setdefault(folder.parent, []).append(folder)
    return [_trajectory(folder, checkpoints, root, home) for folder, checkpoints in found.items()]


def _trajectory(folder: Path, checkpoints: list[Path], root: Path, home: Path | None) -> Verification:
    damages, num_pruned = [], 0
    stored = _stored_checksums(folder, home)
    for path in checkpoints:
        try:
            checkpoint = read_checkpoint(path)
            if checkpoint.record.pruned:
                num_pruned += 1
            else:
                checkpoint.tensors()  # reading compares the checksums
                checkpoint.state()
            damages += [Damage(path, what) for what in _disagreements(checkpoint, stored)]
        except DamagedCheckpointError as error:
            damages.append(Damage(path, str(error)))
    name = str(folder.relative_to(root.parent)) if folder.is_relative_to(root.parent) else folder.name
    size = sum(file.stat().st_size for path in checkpoints for file in path.iterdir() if file.is_file())
    return Verification(name, len(checkpoints), size, num_pruned, tuple(damages))


def _stored_checksums(folder: Path, home: Path | None) -> dict[int, dict[str, str]]:
    """Edit count -> parameter -> checksum of a trajectory's tensors in the warehouse."""
    parts = () if home is None else folder.relative_to(home).parts  # runs/RUN/TRAJECTORY/ORDER, or .../after/STEP
    if home is None or len(parts) not in (4, 6):
        return {}
    table, columns = "checkpoints", ["edit_count", "parameter", "sha256"]
    if len(parts) == 6:
        table, columns = after_table(table), [*columns, "after"]
    run, trajectory, order = parts[1:4]
    below = home / "warehouse" / table / folder_name(run) / folder_name(trajectory)
    stored: dict[int, dict[str, str]] = {}
    for path in (below / order.removeprefix("order-")).rglob("*.parquet"):
        try:
            rows = pq.ParquetFile(path).read(columns=columns).to_pylist()
        except (pa.ArrowException, OSError):  # reported with the table
            continue
        for row in rows:
            if "after" not in row or folder_of_step(row["after"]) == folder.name:
                stored.setdefault(row["edit_count"], {})[row["parameter"]] = row["sha256"]
    return stored


def _disagreements(checkpoint: Checkpoint, stored: dict[int, dict[str, str]]) -> Iterator[str]:
    record = checkpoint.record
    if checkpoint.folder.name.isdecimal() and int(checkpoint.folder.name) != record.edit_count:
        yield f"the folder is named {checkpoint.folder.name}, its record says {record.edit_count} edits"
    rows = stored.get(record.edit_count)
    if checkpoint.folder.name.isdecimal() and rows and rows != {n: t.sha256 for n, t in record.tensors.items()}:
        yield "the warehouse has other checksums of it"


def _warehouse(root: Path, run: str | None) -> list[Verification]:
    parts = []
    for place, table in [*((table, table) for table in TABLES), *((f"{HISTORY}/{table}", table) for table in RESULTS)]:
        folder = root / place if run is None else root / place / folder_name(run)
        files = sorted(path for path in folder.rglob("*.parquet") if path.is_file())
        damages = tuple(Damage(path, what) for path in files for what in _all_damage(root, table, path))
        if files:
            size = sum(path.stat().st_size for path in files)
            parts.append(Verification(f"warehouse/{place}", len(files), size, 0, damages))
    return parts


def _all_damage(root: Path, table: str, path: Path) -> list[str]:
    """The defects of a file in helpful words; if there is none, its checksum is compared as well."""
    found = list(_file_damage(root, table, path))
    return found if found or is_whole(path) else ["does not have the checksum that it was written with"]


def _file_damage(root: Path, table: str, path: Path) -> Iterator[str]:
    try:
        file = pq.ParquetFile(path)
        content = file.read()
        content.validate(full=True)
        metadata = content.schema.metadata or {}
        partition, part = json.loads(metadata.get(STAGE, b"[{}, null]"))
        records = content.select([name for name in content.column_names if name in partition]).to_pylist()
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        yield f"cannot be read: {' '.join(str(error).split())[:200]}"
        return
    schema = TABLES[table]
    unknown = [name for name in content.column_names if name not in schema.names]
    lacking = [field.name for field in schema if not field.nullable and field.name not in content.column_names]
    if unknown or lacking:
        yield f"its columns are not those of {table}: {shown_value((unknown or lacking)[0])}"
        return
    for name, value in partition.items():
        if any(record.get(name) != value for record in records):
            yield f"holds rows that are not of {name}={value}"
    if table == "outcomes":
        yield from _sums_damage(content, file.metadata.metadata or {})
    key = metadata.get(KEY, b"").decode(errors="replace")
    if not key:
        yield "does not say which stage wrote it"
    elif part is not None and str(path.relative_to(root)) not in _paths(table, partition, key, part):
        yield "its name does not follow from what it holds"


def _paths(table: str, partition: Partition, key: str, part: str) -> tuple[str, str]:
    """The path of a stage's file below the root: while its rows are current, and in the history."""
    path = stage_path(table, partition, key, part)
    return current_path(path), f"{HISTORY}/{path}"


def _sums_damage(content: pa.Table, footer: Mapping[bytes, bytes]) -> Iterator[str]:
    try:
        kept = from_footer(footer)
        if kept is not None and not same_sums(kept, sums_of(conform("outcomes", content, TABLES["outcomes"]))):
            yield "the sums in its footer are not those of its rows"
    except ValueError as error:  # a column of another type, or unreadable sums
        yield " ".join(str(error).split())[:200]
