"""What the report and the pictures show: the rows of the views for one run, and how its lines are called."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import duckdb

from overedit.tasks.report import queries
from overedit.tasks.runs.run import unknown_run
from overedit.tasks.warehouse.vocabulary import PROTOCOLS
from overedit.tasks.warehouse.warehouse import Warehouse

Row = dict[str, Any]


class Line(NamedTuple):
    """One trajectory as charts and tables show it."""

    trajectory: str
    order_seed: int
    name: str
    """The method's label; with the ordering's seed where a run has several."""
    color: int
    """The same for all orderings of a trajectory."""


@dataclass(frozen=True)
class RunData:
    """All that is shown of a run."""

    run: str
    lines: tuple[Line, ...]
    """In the order of the leaderboard."""
    runs: list[Row]
    cases: list[Row]
    """A few cases, with what each checkpoint said."""
    updates: list[Row]
    """What the turns' updates did to ordinary keys; none where no method told."""
    checkpoints: list[Row]
    """Perplexity and capability, a row a checkpoint that has both."""
    stages: list[Row]
    """Seconds a stage of each trajectory."""
    views: dict[str, list[Row]]

    def of(self, line: Line, view: str, **values: Any) -> list[Row]:
        """A view's rows of one trajectory that have these values, in the view's order; none of a view not there."""
        rows = self._by_line[view, line.trajectory, line.order_seed]
        return [row for row in rows if all(row[key] == value for key, value in values.items())]

    def one(self, line: Line, view: str, **values: Any) -> Row | None:
        """The only such row, or None."""
        rows = self.of(line, view, **values)
        return rows[0] if rows else None

    def of_retention(self, protocol: str) -> list[Row]:
        """What is remembered by age under a protocol, of every trajectory."""
        return [row for row in self.views["retention_by_age"] if row["protocol"] == protocol]

    @cached_property
    def protocols(self) -> tuple[str, ...]:
        """The protocols under which anything was asked, generated first."""
        found = {row["protocol"] for row in self.views["reliability_by_edit_count"]}
        return tuple(protocol for protocol in PROTOCOLS if protocol in found)

    @cached_property
    def edit_counts(self) -> tuple[int, ...]:
        """Every edit count at which something was measured, 0 included."""
        return tuple(sorted({row["edit_count"] for view in queries.CURVES for row in self.views[view]}))

    @cached_property
    def ages(self) -> tuple[str, ...]:
        """The decades of age that were asked, the newest edits first."""
        names = {row["age_low"]: row["age"] for row in self.views["retention_by_age"]}
        return tuple(names[low] for low in sorted(names))

    @cached_property
    def presets(self) -> tuple[str, ...]:
        """The papers' own ways of scoring that this run has numbers for."""
        return tuple(dict.fromkeys(row["preset"] for row in self.views["preset_scores"] if row["value"] is not None))

    @cached_property
    def _by_line(self) -> defaultdict[tuple[str, str, int], list[Row]]:
        rows = defaultdict(list)
        for view, content in self.views.items():
            for row in content if {"trajectory", "order_seed"} <= (content[0] if content else {}).keys() else ():
                rows[view, row["trajectory"], row["order_seed"]].append(row)
        return rows


def collect(warehouse: Warehouse, run: str) -> RunData:
    """Read a run's rows.

    Raises:
        ValueError: The warehouse has no trajectory of that run.
    """
    with warehouse.connect(run=run) as connection:
        views = {view: _read(connection, f"SELECT * FROM {view} WHERE run = $run", run) for view in queries.VIEWS}
        if not views["leaderboard"]:
            raise unknown_run(warehouse, run)
        return RunData(
            run=run,
            lines=_lines(views["leaderboard"]),
            runs=_read(connection, queries.RUNS, run),
            cases=_read(connection, queries.CASES, run),
            updates=_read(connection, queries.UPDATES, run),
            checkpoints=_read(connection, queries.CHECKPOINTS, run),
            stages=_read(connection, queries.STAGES, run),
            views=views,
        )


def is_of(row: Row, line: Line) -> bool:
    """Whether a row is of this trajectory and ordering."""
    return bool(row["trajectory"] == line.trajectory and row["order_seed"] == line.order_seed)


def _read(connection: duckdb.DuckDBPyConnection, sql: str, run: str) -> list[Row]:
    return list(connection.sql(sql, params={"run": run}).to_arrow_table().to_pylist())


def _lines(leaderboard: list[Row]) -> tuple[Line, ...]:
    has_orderings = len({row["order_seed"] for row in leaderboard}) > 1
    names = [f"{row['label']} (order {row['order_seed']})" if has_orderings else row["label"] for row in leaderboard]
    doubled = {name for name, times in Counter(names).items() if times > 1}
    colors = list(dict.fromkeys(row["trajectory"] for row in leaderboard))
    return tuple(
        Line(
            trajectory=row["trajectory"],
            order_seed=row["order_seed"],
            name=f"{name} [{row['trajectory']}]" if name in doubled else name,
            color=colors.index(row["trajectory"]),
        )
        for row, name in zip(leaderboard, names, strict=True)
    )
