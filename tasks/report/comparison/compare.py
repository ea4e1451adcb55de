"""A comparison of two runs: the settings that differ, and whether their numbers differ by more than chance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import duckdb

from overedit.tasks.report.comparison.differences import Difference, Point, differences, unmatched
from overedit.tasks.report.comparison.settings import Setting, differing_settings
from overedit.tasks.runs.run import display_names, unknown_run
from overedit.tasks.warehouse.tables import Row
from overedit.tasks.warehouse.views import query_sql
from overedit.tasks.warehouse.vocabulary import PROTOCOLS
from overedit.tasks.warehouse.warehouse import Warehouse

_TRAJECTORIES = "SELECT * FROM collapse_point WHERE run = $run ORDER BY ALL"
_POINTS = "comparison/points"


class Collapse(NamedTuple):
    """The edit count at which a trajectory collapsed in each run, and the criterion; None where it did not."""

    name: str
    first: int | None
    first_reason: str | None
    second: int | None
    second_reason: str | None


class Comparison(NamedTuple):
    """The result of comparing two runs."""

    first: str
    second: str
    protocol: str
    settings: list[Setting]
    differences: list[Difference]
    collapses: list[Collapse]
    only_first: list[str]
    only_second: list[str]
    """Trajectories that the other run does not have."""
    unfinished: list[str]
    """Runs whose settings are not stored yet."""
    trajectories: dict[str, tuple[str, int | None, str]]
    """Display name -> trajectory, order seed (None if several orders are pooled) and label."""
    unmatched: list[tuple[Point, int]]
    """Measures of only one of the runs, with its number, 1 or 2."""


class _Side(NamedTuple):
    """One of the runs, with its trajectories by display name."""

    run: str
    names: dict[tuple[str, int], str]
    """(trajectory, order seed) -> display name, which several orders share if they are pooled."""
    collapses: dict[str, Row]
    """Display name -> row of `collapse_point`."""
    ended: dict[str, Row]
    """Display name -> row of `runs`; only trajectories that have ended."""


def compare(
    warehouse: Warehouse, first: str, second: str, *, protocol: str = "generated", pool_orders: bool = False
) -> Comparison:
    """Compare two runs of one warehouse, trajectory by trajectory: those with the same label and order of the edits.

    A difference is paired where both runs asked the same questions (the same prompts of the same cases with the same
    targets, the same benchmark items, the same texts) and the pairs are at least half of the questions of either run.
    Otherwise it combines the intervals of each run.

    Args:
        warehouse: Has the rows of both runs.
        first: The name of a run, or of an instance, `RUN@INSTANCE`.
        second: Another name of that kind.
        protocol: The protocol under which answers are scored.
        pool_orders: Compare all orders of a trajectory together: a question counts once, by its mean over them.

    Raises:
        ValueError: A run is unknown or named twice, the protocol is unknown, or the runs have no measure in common.
    """
    if first == second:
        raise ValueError(f"compare: {first!r} is given twice; name two runs")
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    instances = [name for name in (first, second) if "@" in name]
    with warehouse.connect(sql=f"{_TRAJECTORIES}; {query_sql(_POINTS)}", instances=instances) as connection:
        sides = _sides(warehouse, connection, first, second, pool_orders)
        _store_names(connection, sides)

        def ask(name: str, **values: Any) -> list[Row]:
            return _rows(connection, query_sql(name), **values)

        found = differences(ask, protocol)
        only_one = unmatched(ask, protocol)
        if not found:
            raise ValueError(_nothing_in_common(connection, sides, protocol))
    one, other = sides
    return Comparison(
        first=first,
        second=second,
        protocol=protocol,
        settings=differing_settings(one.ended, other.ended) if one.ended and other.ended else [],
        differences=found,
        collapses=list(_collapses(one, other)),
        only_first=[name for name in one.collapses if name not in other.collapses],
        only_second=[name for name in other.collapses if name not in one.collapses],
        unfinished=[side.run for side in sides if not side.ended],
        trajectories={
            name: (row["trajectory"], _only_order(side, name), row["label"])
            for side in sides
            for name, row in side.collapses.items()
        },
        unmatched=only_one,
    )


def _sides(
    warehouse: Warehouse, connection: duckdb.DuckDBPyConnection, first: str, second: str, pool_orders: bool
) -> tuple[_Side, _Side]:
    collapses, ended = {}, {}
    for run in (first, second):
        collapses[run] = _rows(connection, _TRAJECTORIES, run=run)
        ended[run] = _rows(connection, "SELECT * FROM runs WHERE run = $run", run=run)
        if not collapses[run]:
            raise unknown_run(warehouse, run)
    show_order = any(len({row["order_seed"] for row in rows}) > 1 for rows in collapses.values())

    def side(run: str) -> _Side:
        rows = collapses[run]
        if pool_orders:
            of_trajectory = {row["trajectory"]: row for row in rows}
            labels = display_names(list(of_trajectory.values()), show_order=False)
            named = dict(zip(of_trajectory, labels, strict=True))
            names = {_identity(row): named[row["trajectory"]] for row in rows}
        else:
            names = dict(zip(map(_identity, rows), display_names(rows, show_order=show_order), strict=True))
        return _Side(
            run,
            names,
            {names[_identity(row)]: row for row in rows},
            {names[_identity(row)]: row for row in ended[run] if _identity(row) in names},
        )

    return side(first), side(second)


def _only_order(side: _Side, name: str) -> int | None:
    orders = [order for (_, order), of in side.names.items() if of == name]
    return orders[0] if len(orders) == 1 else None


def _identity(row: Row) -> tuple[str, int]:
    return row["trajectory"], row["order_seed"]


def _store_names(connection: duckdb.DuckDBPyConnection, sides: tuple[_Side, ...]) -> None:
    """Create the table `compared`, which the queries of a comparison join: the display name of each trajectory."""
    connection.execute(
        "CREATE TEMP TABLE compared (side INT, run VARCHAR, trajectory VARCHAR, order_seed BIGINT, name VARCHAR)"
    )
    rows = [
        (number, side.run, *identity, name)
        for number, side in enumerate(sides, start=1)
        for identity, name in side.names.items()
    ]
    connection.executemany("INSERT INTO compared VALUES (?, ?, ?, ?, ?)", rows)


def _collapses(one: _Side, other: _Side) -> Iterator[Collapse]:
    for name, first in one.collapses.items():
        if (second := other.collapses.get(name)) is not None:
            yield Collapse(name, first["collapse_at"], first["reason"], second["collapse_at"], second["reason"])


def _nothing_in_common(connection: duckdb.DuckDBPyConnection, sides: tuple[_Side, ...], protocol: str) -> str:
    """The error message for runs that cannot be compared: the edit counts that each of them measured."""
    rows = _rows(connection, query_sql(_POINTS), protocol=protocol)
    measured = []
    for number, side in enumerate(sides, start=1):
        counts = {
            name: sorted({row["edit_count"] for row in rows if (row["side"], row["name"]) == (number, name)})
            for name in side.collapses
        }
        has = [f"{name} at {', '.join(f'{at:,}' for at in of) or 'no'} edits" for name, of in counts.items()]
        measured.append(f"{side.run} has {'; '.join(has)}")
    return f"compare: the runs have no measure of one method at one edit count in common: {'. '.join(measured)}"


def _rows(connection: duckdb.DuckDBPyConnection, sql: str, **values: Any) -> list[Row]:
    return list(connection.sql(sql, params=values).to_arrow_table().to_pylist())
