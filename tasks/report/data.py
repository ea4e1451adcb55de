"""The rows that the report and its pictures show, read once from the warehouse."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import duckdb

from overedit.tasks.report import queries
from overedit.tasks.runs.run import display_names, unknown_run
from overedit.tasks.warehouse.tables import Row as Row
from overedit.tasks.warehouse.views import query_sql
from overedit.tasks.warehouse.vocabulary import PROTOCOLS
from overedit.tasks.warehouse.warehouse import Warehouse


class Trajectory(NamedTuple):
    """A trajectory as charts and tables show it."""

    id: str
    """The value of the column `trajectory`."""
    order_seed: int
    name: str
    """The method's label, with the order seed if the run has several orders."""
    color: int
    """Index of the color; all orders of a trajectory have the same one."""


@dataclass(frozen=True)
class RunData:
    """The rows of one run."""

    run: str
    trajectories: tuple[Trajectory, ...]
    """In the order of the leaderboard."""
    runs: list[Row]
    """Rows of the table `runs`; empty until a trajectory has ended."""
    cases: list[Row]
    """A few cases with the answers of every checkpoint."""
    updates: list[Row]
    """Sizes of the turns' updates; empty if no method logs them."""
    checkpoints: list[Row]
    """Perplexity and capability, one row per checkpoint that has both."""
    stages: list[Row]
    """Seconds per stage of each trajectory."""
    views: dict[str, list[Row]]
    """View -> its rows, in the order of the view."""

    def of(self, trajectory: Trajectory, view: str, **values: Any) -> list[Row]:
        """The rows of a view for one trajectory that have these values; empty for a view that was not read."""
        rows = self._by_trajectory[view, trajectory.id, trajectory.order_seed]
        return [row for row in rows if all(row[key] == value for key, value in values.items())]

    def of_each(self, view: str, **values: Any) -> list[list[Row]]:
        """The rows that `of` returns for each trajectory, in the order of `trajectories`."""
        return [self.of(trajectory, view, **values) for trajectory in self.trajectories]

    def at_end(self, trajectory: Trajectory, view: str, **values: Any) -> list[Row]:
        """The rows that `of` returns with the largest edit count among them."""
        rows = self.of(trajectory, view, **values)
        last = max((row["edit_count"] for row in rows), default=0)
        return [row for row in rows if row["edit_count"] == last]

    def one(self, trajectory: Trajectory, view: str, **values: Any) -> Row | None:
        """The first row that `of` returns; None without a row."""
        rows = self.of(trajectory, view, **values)
        return rows[0] if rows else None

    def of_retention(self, protocol: str) -> list[Row]:
        """The rows of `retention_by_age` under a protocol, for all trajectories."""
        return [row for row in self.views["retention_by_age"] if row["protocol"] == protocol]

    @cached_property
    def protocols(self) -> tuple[str, ...]:
        """The protocols with rows, in the order of PROTOCOLS."""
        found = {row["protocol"] for row in self.views["reliability_by_edit_count"]}
        return tuple(protocol for protocol in PROTOCOLS if protocol in found)

    @cached_property
    def edit_counts(self) -> tuple[int, ...]:
        """Every edit count at which something was measured, including 0, ascending."""
        return tuple(sorted({row["edit_count"] for view in queries.CURVES for row in self.views[view]}))

    @cached_property
    def ages(self) -> tuple[str, ...]:
        """The decades of age with rows, the newest edits first."""
        names = {row["age_low"]: row["age"] for row in self.views["retention_by_age"]}
        return tuple(names[low] for low in sorted(names))

    @cached_property
    def presets(self) -> tuple[str, ...]:
        """The papers' scoring protocols under which the run has a score."""
        return tuple(dict.fromkeys(row["preset"] for row in self.views["preset_scores"] if row["value"] is not None))

    @cached_property
    def _by_trajectory(self) -> defaultdict[tuple[str, str, int], list[Row]]:
        rows = defaultdict(list)
        for view, content in self.views.items():
            for row in content:
                if "trajectory" in row and "order_seed" in row:
                    rows[view, row["trajectory"], row["order_seed"]].append(row)
        return rows


def collect(warehouse: Warehouse, run: str) -> RunData:
    """Read the rows of a run.

    Raises:
        ValueError: The warehouse has no trajectory of that run.
    """
    queries_of_report = [query_sql(f"report/{name}") for name in ("runs", "cases", "updates", "checkpoints", "stages")]
    with warehouse.connect(run=run, sql=" ".join([*queries.VIEWS, *queries_of_report])) as connection:
        views = {view: _read(connection, f"SELECT * FROM {view} WHERE run = $run", run) for view in queries.VIEWS}
        if not views["leaderboard"]:
            raise unknown_run(warehouse, run)
        return RunData(
            run=run,
            trajectories=_trajectories(views["leaderboard"]),
            runs=_read(connection, query_sql("report/runs"), run),
            cases=_read(connection, query_sql("report/cases"), run),
            updates=_read(connection, query_sql("report/updates"), run),
            checkpoints=_read(connection, query_sql("report/checkpoints"), run),
            stages=_read(connection, query_sql("report/stages"), run),
            views=views,
        )


def is_of(row: Row, trajectory: Trajectory) -> bool:
    """Whether a row belongs to a trajectory and its order."""
    return bool(row["trajectory"] == trajectory.id and row["order_seed"] == trajectory.order_seed)


def _read(connection: duckdb.DuckDBPyConnection, sql: str, run: str) -> list[Row]:
    return list(connection.sql(sql, params={"run": run}).to_arrow_table().to_pylist())


def _trajectories(leaderboard: list[Row]) -> tuple[Trajectory, ...]:
    names = display_names(leaderboard, show_order=len({row["order_seed"] for row in leaderboard}) > 1)
    ids = list(dict.fromkeys(row["trajectory"] for row in leaderboard))
    return tuple(
        Trajectory(row["trajectory"], row["order_seed"], name, color=ids.index(row["trajectory"]))
        for row, name in zip(leaderboard, names, strict=True)
    )
