"""A run and the points of its trajectories: their identity in the warehouse, and their folders."""

from __future__ import annotations

import os
import platform
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from overedit.editing.storage.checksums import digest
from overedit.tasks.storage.stores import as_url
from overedit.tasks.system.untrusted import shown_value, without_credentials
from overedit.tasks.warehouse.arrow_rows import Rows
from overedit.tasks.warehouse.layout import Partition, current_path, stage_path
from overedit.tasks.warehouse.views import literal
from overedit.tasks.warehouse.warehouse import Warehouse

BASE = "base"
"""The trajectory of the pristine model: edit count 0, method `none`, shared by all methods of a run."""


_LONGEST_NAME = 100  # characters of a trajectory's name, which is a folder's

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""The pattern of a run's name, which is also the name of its folder and cannot lead to another one."""


def check_reference(name: str) -> None:
    """Check the name of a run, or of one of its instances, `RUN@INSTANCE`.

    Raises:
        ValueError: It is neither.
    """
    run, at, instance = name.partition("@")
    check_name(run)
    if at and re.fullmatch(NAME, instance) is None:
        raise ValueError(f"name: {shown_value(name)}: after the @ an instance is expected; see overedit history {run}")


@dataclass
class FileLog:
    """The files of rows that an execution of a run has made or taken over: path below the warehouse -> table."""

    computed: dict[str, str] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)
    """May hold files of `computed` too: a stage that is tried again takes over what it made before."""
    _of_stage: dict[str, str] = field(default_factory=dict)
    """The path while the rows are current -> the newest path of that stage."""

    def add(self, kind: Literal["computed", "shared"], path: str, table: str) -> None:
        """Add a file, in the place of one of the same stage with another key."""
        before = self._of_stage.setdefault(current_path(path), path)
        if before != path:
            self.computed.pop(before, None)
            self.shared.pop(before, None)
            self._of_stage[current_path(path)] = path
        (self.computed if kind == "computed" else self.shared)[path] = table


def check_name(name: str) -> None:
    """Check a run's name.

    Raises:
        ValueError: It does not match NAME.
    """
    if (fault := name_fault(name)) is not None:
        raise ValueError(f"name: {shown_value(name)} is {fault}")


def name_fault(name: str) -> str | None:
    """What is wrong with a run's name, what is accepted, and a name like it that is; None if nothing is wrong."""
    if re.fullmatch(NAME, name) is not None:
        return None
    accepted = "1 to 64 letters, digits, dots, hyphens and underscores, the first a letter or a digit"
    similar = re.sub(r"[^A-Za-z0-9._-]+", "-", name[:_LONGEST_NAME]).strip("._-")[:64]
    return f"not a run's name; accepted: {accepted}" + (f", e.g. {similar}" if re.fullmatch(NAME, similar) else "")


def check_folder(folder: str | Path, key: str) -> None:
    """Check that something is on this machine: `Path` would make a folder `s3:` of a URL.

    Args:
        folder: As it was given, or as a path.
        key: What the message calls it.

    Raises:
        ValueError: It is a URL.
    """
    if (url := as_url(folder)) is not None:
        raise ValueError(f"{key}: {shown_value(without_credentials(url))} is a URL; accepted: a folder of this machine")


WITHOUT_EFFECT = ("home", "execution", "editing")
"""Keys of a configuration that determine no result: where it lies, and where it is computed."""


@dataclass(frozen=True)
class Run:
    """A run: its name, model and dataset, and the folders of its results."""

    name: str
    home: Path
    """The folder of `warehouse/`, `runs/` and `reports/`; for a home in an object store, its working copy."""
    model: str
    dataset: str
    files: FileLog = field(default_factory=FileLog, compare=False, repr=False)
    """The files of rows that this process has made or taken over."""

    @property
    def warehouse(self) -> Warehouse:
        """The warehouse, which several runs share."""
        return Warehouse(self.home / "warehouse")

    @property
    def folder(self) -> Path:
        """The run's own folder: configuration and checkpoints."""
        return self.home / "runs" / self.name

    @property
    def report(self) -> Path:
        """The run's report page."""
        return self.home / "reports" / f"{self.name}.html"

    def store(self, table: str, rows: Rows, *, partition: Partition, key: str, part: str = "") -> None:
        """Write rows of the run to a table, replacing the current ones of that partition and part."""
        self.warehouse.write(table, rows, partition=partition, key=key, part=part)
        self.files.add("computed", stage_path(table, partition, key, part), table)

    def reuse(self, table: str, partition: Partition, key: str, *, part: str = "") -> bool:
        """Take over rows that were written with this key; False if there are none."""
        if not self.warehouse.reuse(table, partition, key, part=part):
            return False
        self.files.add("shared", stage_path(table, partition, key, part), table)
        return True


class TrajectoryPoint(BaseModel):
    """A trajectory at an edit count: the identity of rows in the warehouse."""

    model_config = ConfigDict(frozen=True)

    run: Run
    trajectory: str
    method: str
    order_seed: int
    edit_count: int

    @property
    def partition(self) -> dict[str, Any]:
        """The partition of the warehouse that holds the rows of this point."""
        return {
            "run": self.run.name,
            "trajectory": self.trajectory,
            "order_seed": self.order_seed,
            "edit_count": self.edit_count,
        }

    @property
    def identity(self) -> dict[str, Any]:
        """The identity columns of the rows of this point."""
        return self.partition | {"model": self.run.model, "method": self.method, "dataset": self.run.dataset}

    @property
    def in_words(self) -> str:
        """The point in messages."""
        return f"{self.trajectory} at {self.edit_count:,} edits"

    def table(self, table: str) -> str:
        """The table that holds this point's rows of a kind."""
        return table

    def at(self, edit_count: int) -> TrajectoryPoint:
        """Another point of the same trajectory."""
        return self.model_copy(update={"edit_count": edit_count})

    def store(self, table: str, rows: Iterable[Mapping[str, Any]], *, key: str, part: str = "") -> None:
        """Write the rows of this point (and part) to a table, replacing the current ones."""
        whole = (self.identity | dict(row) for row in rows)
        self.run.store(self.table(table), whole, partition=self.partition, key=key, part=part)

    def holds(self, table: str, key: str, *, part: str = "") -> bool:
        """Whether the current rows of this point (and part) were written with this key."""
        return self.run.warehouse.holds(self.table(table), self.partition, key, part=part)

    def reuse(self, table: str, key: str, *, part: str = "") -> bool:
        """Take over the rows of this point (and part) that were written with this key; False if there are none."""
        return self.run.reuse(self.table(table), self.partition, key, part=part)

    def store_cost(self, stage: str, seconds: float, num_items: int, *, key: str, part: str = "", **more: Any) -> None:
        """Write the cost of a stage that has just ended, or at `ended_at`: one row per stage, or per stage and part."""
        row = {"stage": stage, "seconds": seconds, "num_items": num_items, "ended_at": datetime.now(UTC)} | more
        self.store("costs", [row], key=key, part=part or stage)


def short_name(model: str) -> str:
    """A model's name in tables: the folder's or the hub name, without what leads there."""
    path = Path(model)
    return path.resolve().name if path.is_dir() else model


def folder_name(label: str) -> str:
    """A label as the name of a folder: it leads to no other, and is short enough for every file system."""
    kept = "".join(character if character.isascii() and character.isalnum() else "-" for character in label.lower())
    name = "-".join(part for part in kept.split("-") if part)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 17]}-{digest(label)}"


def hardware() -> str:
    """The machine in words: the GPUs, or else the processor and the cores that this process may use."""
    import torch  # takes a second, which `overedit status` need not wait for

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"{len(os.sched_getaffinity(0))} CPU cores ({platform.machine()}, {platform.processor() or 'unknown'})"


def display_names(rows: Sequence[Mapping[str, Any]], *, show_order: bool) -> list[str]:
    """The names by which tables and charts call the trajectories of a run.

    A name is the method's label; with the order seed if it is shown; and with the trajectory's own name if two
    trajectories would have the same name otherwise.

    Args:
        rows: One row per trajectory and order, with the columns label, trajectory and order_seed.
        show_order: Whether the order seed is shown: where a run has several.

    Returns:
        A name per row, in the order of the rows.
    """
    names = [f"{row['label']} (order {row['order_seed']})" if show_order else str(row["label"]) for row in rows]
    times = Counter(names)
    return [f"{name} [{row['trajectory']}]" if times[name] > 1 else name for row, name in zip(rows, names, strict=True)]


def unknown_run(warehouse: Warehouse, run: str) -> ValueError:
    """The error for an unknown run, which lists the runs; for a scan or a search it gives their query."""
    if warehouse.query(f"SELECT 1 FROM trials WHERE run = {literal(run)} LIMIT 1").num_rows:
        sql = f"SELECT * FROM tuned_settings WHERE run = {literal(run)}"
        return ValueError(
            f"run: {run!r} is a search for settings, which has no curves; its report is reports/{run}.tune.html; "
            f'ask: overedit sql "{sql}"'
        )
    if warehouse.query(f"SELECT 1 FROM scans WHERE run = {literal(run)} LIMIT 1").num_rows:
        sql = f"SELECT * FROM scan_summary WHERE run = {literal(run)}"
        return ValueError(f'run: {run!r} is a scan, which has no report and no curves; ask: overedit sql "{sql}"')
    if warehouse.query(f"SELECT 1 FROM site_scores WHERE run = {literal(run)} LIMIT 1").num_rows:
        sql = f"SELECT * FROM site_ranking WHERE run = {literal(run)}"
        page = f"its page is reports/{run}.locate.html; ask: overedit sql"
        return ValueError(f'run: {run!r} is a search among sites, which has no curves; {page} "{sql}"')
    known = warehouse.query("SELECT DISTINCT run FROM trajectories ORDER BY run")["run"].to_pylist()
    return ValueError(f"run: {run!r} is not in {warehouse.root}; its runs are: {', '.join(known) or 'none yet'}")
