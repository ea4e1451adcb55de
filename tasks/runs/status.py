"""Which runs there are, who works on them, how each trajectory ended and why, and what they use of the disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from overedit.tasks.runs.run import BASE
from overedit.tasks.system.locks import HeldError, check_run_is_free, holder
from overedit.tasks.system.untrusted import printable
from overedit.tasks.warehouse.warehouse import Warehouse

NOT_FINISHED = {"status": "not finished", "error": None}


class _Place(NamedTuple):
    """Which trajectory a row of the table is about."""

    run: str
    trajectory: str
    order_seed: int


def status_table(home: Path) -> Table:
    """One row a trajectory: checkpoints, how it ended and why, megabytes; and one a run: who works on it."""
    ended, broken, workers = _ended(home) | _scanned(home), _broken(home), _workers(home)
    begun = {path.parent.name for path in (home / "runs").glob("*/run.json")}
    folders = dict(_folders(home))
    table = Table("run", "trajectory", "order", "checkpoints", "status", "MB", "error")
    for run in sorted({place.run for place in (*ended, *folders)} | workers.keys() | begun):
        for place in sorted(place for place in {*ended, *folders} if place.run == run):
            counts = _counts(folders[place]) if place in folders else []
            row = ended.get(place, NOT_FINISHED)
            size = _num_bytes([folders[place]]) if place in folders else 0
            cells = (run, place.trajectory, str(place.order_seed), " ".join(counts), row["status"], _megabytes(size))
            why = "; ".join(filter(None, [row["error"], broken.get(place)]))
            table.add_row(*cells, Text(printable(why)))
        size = _num_bytes(_of_run(home, run))
        status, who = ("running", workers[run]) if run in workers else ("", "")
        table.add_row(run, "all, with rows and report", "", "", status, _megabytes(size), Text(who), end_section=True)
    return table


def _workers(home: Path) -> dict[str, str]:
    """Run -> who works on it now."""
    found = {}
    for folder in (home / "runs").glob("*"):
        try:
            check_run_is_free(folder)
        except (HeldError, PermissionError):  # or a lock of somebody else's, who may be at work
            found[folder.name] = holder(folder / "lock")
    return found


def _ended(home: Path) -> dict[_Place, dict[str, Any]]:
    """How each trajectory ended; of several rows of one, the one that was begun last."""
    rows = Warehouse(home / "warehouse").rows("runs", {}) if (home / "warehouse").is_dir() else []
    rows.sort(key=lambda row: str(row["started_at"]))
    return {_Place(row["run"], row["trajectory"], row["order_seed"]): row for row in rows if row["trajectory"] != BASE}


def _scanned(home: Path) -> dict[_Place, dict[str, Any]]:
    """How far each scan is, which has rows and no checkpoint."""
    if not (home / "warehouse").is_dir():
        return {}
    rows = Warehouse(home / "warehouse").query(
        "SELECT run, trajectory, order_seed, n + num_failed AS done FROM scan_summary WHERE subject = 'all'"
    )
    return {
        _Place(row["run"], row["trajectory"], row["order_seed"]): {
            "status": f"{row['done']:,} edits scanned",
            "error": None,
        }
        for row in rows.to_pylist()
    }


def _broken(home: Path) -> dict[_Place, str]:
    """The trajectories whose weights ceased to be numbers, which ends them early without being a failure."""
    if not (home / "warehouse").is_dir():
        return {}
    rows = Warehouse(home / "warehouse").query(
        "SELECT run, trajectory, order_seed, first_edit, last_edit FROM diagnostics "
        "WHERE site IS NULL AND quantity = 'finite' AND value = 0"
    )
    return {
        _Place(row["run"], row["trajectory"], row["order_seed"]): "the weights are not finite after the turn of edits "
        f"{row['first_edit']:,} to {row['last_edit']:,}"
        for row in rows.to_pylist()
    }


def _folders(home: Path) -> Iterator[tuple[_Place, Path]]:
    for folder in (home / "runs").glob("*/*/order-*"):
        order = folder.name.removeprefix("order-")
        if order.lstrip("-").isdecimal():
            yield _Place(folder.parts[-3], folder.parts[-2], int(order)), folder


def _counts(folder: Path) -> list[str]:
    """The edit counts that have a checkpoint; in brackets where its weights were pruned."""
    folders = [path for path in sorted(folder.glob("[0-9]*")) if path.name.isdecimal()]
    return [
        str(int(path.name)) if (path / "weights.safetensors").is_file() else f"({int(path.name)})" for path in folders
    ]


def _of_run(home: Path, run: str) -> list[Path]:
    endings = (".html", ".md", ".png", ".retention.png", ".perplexity-capability.png")
    reports = [home / "reports" / f"{run}{ending}" for ending in endings]
    return [home / "runs" / run, *(home / "warehouse").glob(f"*/run={run}"), *reports]


def _num_bytes(paths: Iterable[Path]) -> int:
    files = (file for path in paths for file in ([path] if path.is_file() else path.rglob("*")))
    return sum(file.stat().st_size for file in files if file.is_file())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"
