"""The table of `overedit status`: the runs of a home, how their trajectories ended, who works on them, their size."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from overedit.tasks.runs.run import BASE
from overedit.tasks.runs.run_lock import workers
from overedit.tasks.storage.outline import outline
from overedit.tasks.storage.working_copy import is_there
from overedit.tasks.system.untrusted import printable
from overedit.tasks.warehouse.views import literal
from overedit.tasks.warehouse.warehouse import Warehouse

NOT_FINISHED = "not finished"

# the latest start last; a row without a time counts as the latest
_ENDED = f"""
SELECT run, trajectory, order_seed, status, error FROM runs
WHERE trajectory <> {literal(BASE)} ORDER BY started_at NULLS LAST
"""
_SCANNED = """
SELECT run, trajectory, order_seed, n + num_failed AS num_done FROM scan_summary WHERE subject = 'all'
"""
_TUNED = """
SELECT run, trajectory, min(order_seed) AS order_seed, count(DISTINCT trial) AS num_done FROM trials
GROUP BY run, trajectory
"""
_NOT_FINITE = """
SELECT run, trajectory, order_seed, first_edit, last_edit FROM diagnostics
WHERE site IS NULL AND quantity = 'finite' AND value = 0 AND on_branch IS NOT TRUE
"""


class _Trajectory(NamedTuple):
    """The trajectory that a row of the table describes."""

    run: str
    name: str
    order_seed: int


class _Outcome(NamedTuple):
    """What the warehouse knows of a trajectory."""

    status: str = NOT_FINISHED
    error: str = ""


def status_table(home: Path) -> Table:
    """The status of every run in a home.

    Each trajectory has a row: its checkpoints, its status, its size in megabytes (1e6 bytes), and its error. Each run
    has one more: its size with rows and report, and the process that holds its lock.

    Args:
        home: The folder with `warehouse/`, `runs/` and `reports/`; each of them may be missing.
    """
    with outline(home, ["runs", "warehouse", "reports"]) as seen:
        return _table(seen, home)


def _table(seen: Path, home: Path) -> Table:
    """The table of a home, from the names and sizes of its files in `seen`."""
    working, folders = workers(home), dict(_folders(seen))
    outcomes = _outcomes(home, folders)
    begun = {path.parent.name for path in (seen / "runs").glob("*/run.json")}
    table = Table("run", "trajectory", "order", "checkpoints", "status", "MB", "error")
    for run in sorted({trajectory.run for trajectory in (*outcomes, *folders)} | working.keys() | begun):
        for trajectory in sorted(one for one in {*outcomes, *folders} if one.run == run):
            folder = folders.get(trajectory)
            status, error = outcomes.get(trajectory, _Outcome())
            counts, size = (_counts(folder), _num_bytes([folder])) if folder else ([], 0)
            cells = (run, trajectory.name, str(trajectory.order_seed), " ".join(counts), status, _megabytes(size))
            table.add_row(*cells, Text(printable(error)))
        size = _num_bytes(_files_of_run(seen, run))
        status, worker = ("running", working[run]) if run in working else ("", "")
        table.add_row(
            run, "all, with rows and report", "", "", status, _megabytes(size), Text(worker), end_section=True
        )
    return table


def _outcomes(home: Path, folders: Collection[_Trajectory]) -> dict[_Trajectory, _Outcome]:
    """The status and error of every trajectory and scan that has ended, begun to scan, or has one of the folders."""
    if not is_there(home / "warehouse"):
        return {}
    found = {}
    with Warehouse(home / "warehouse").connect(sql=f"{_ENDED}; {_SCANNED}; {_TUNED}; {_NOT_FINITE}") as connection:

        def rows(sql: str) -> Iterator[tuple[_Trajectory, dict[str, Any]]]:
            for row in connection.sql(sql).to_arrow_table().to_pylist():
                yield _Trajectory(row["run"], row["trajectory"], row["order_seed"]), row

        for trajectory, row in rows(_ENDED):
            found[trajectory] = _Outcome(row["status"], row["error"] or "")
        for trajectory, row in rows(_SCANNED):
            found[trajectory] = _Outcome(f"{row['num_done']:,} edits scanned")
        for trajectory, row in rows(_TUNED):
            found[trajectory] = _Outcome(f"{row['num_done']:,} settings tried")
        for trajectory, row in rows(_NOT_FINITE):  # ends a trajectory early, and is not a failure
            if trajectory in found or trajectory in folders:
                before = found.get(trajectory, _Outcome())
                turn = f"edits {row['first_edit']:,} to {row['last_edit']:,}"
                error = f"the weights are not finite after the turn of {turn}"
                found[trajectory] = before._replace(error="; ".join(filter(None, [before.error, error])))
    return found


def _folders(home: Path) -> Iterator[tuple[_Trajectory, Path]]:
    for folder in (home / "runs").glob("*/*/order-*"):
        order = folder.name.removeprefix("order-")
        if order.lstrip("-").isdecimal():
            yield _Trajectory(folder.parts[-3], folder.parts[-2], int(order)), folder


def _counts(folder: Path) -> list[str]:
    """The edit counts of a trajectory's checkpoints; those whose weights were pruned are in brackets."""
    folders = [path for path in sorted(folder.glob("[0-9]*")) if path.name.isdecimal()]
    return [
        str(int(path.name)) if (path / "weights.safetensors").is_file() else f"({int(path.name)})" for path in folders
    ]


def _files_of_run(home: Path, run: str) -> list[Path]:
    pictures = (".png", ".retention.png", ".perplexity-capability.png", ".brackets.png", ".tune.png", ".locate.png")
    endings = (".html", ".md", *pictures, ".tune.html", ".locate.html")
    reports = [home / "reports" / f"{run}{ending}" for ending in endings]
    return [home / "runs" / run, *(home / "warehouse").glob(f"*/{run}"), *reports]


def _num_bytes(paths: Iterable[Path]) -> int:
    files = (file for path in paths for file in ([path] if path.is_file() else path.rglob("*")))
    return sum(file.stat().st_size for file in files if file.is_file())


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"
