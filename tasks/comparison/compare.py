"""Two runs side by side: what differs in their settings, and whether their numbers differ by more than chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import duckdb

from overedit.tasks.comparison import queries
from overedit.tasks.comparison.differences import Difference, differences
from overedit.tasks.comparison.settings import Setting, differing_settings
from overedit.tasks.report.data import Row
from overedit.tasks.runs.run import unknown_run
from overedit.tasks.warehouse.vocabulary import PROTOCOLS
from overedit.tasks.warehouse.warehouse import Warehouse

_TRAJECTORIES = "SELECT * FROM collapse_point WHERE run = $run ORDER BY ALL"


class Collapse(NamedTuple):
    """Where a trajectory collapsed in both runs, and by what; None where it did not."""

    name: str
    first: int | None
    first_reason: str | None
    second: int | None
    second_reason: str | None


class Comparison(NamedTuple):
    """All that is said of two runs."""

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


class _Side(NamedTuple):
    """One of the runs: its trajectories by what they are called."""

    run: str
    points: dict[str, Row]
    """Rows of `collapse_point`."""
    runs: dict[str, Row]
    """Rows of `runs`; those that have ended."""


def compare(warehouse: Warehouse, first: str, second: str, *, protocol: str = "generated") -> Comparison:
    """Compare two runs of one warehouse, trajectory by trajectory of the same label and order of the edits.

    Differences are paired where both runs asked the same questions: the same prompts of the same cases with the same
    targets, the same benchmark items, the same texts; and if the pairs are at least half of what either asked. If not,
    each run's own intervals are combined.

    Args:
        warehouse: Where the rows of both are.
        first: A run's name.
        second: Another's.
        protocol: How answers are scored.

    Raises:
        ValueError: A run that is not there, twice the same, an unknown protocol, or nothing that both measured.
    """
    if first == second:
        raise ValueError(f"compare: {first!r} is given twice; name two runs")
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    with warehouse.connect(sql=f"{_TRAJECTORIES}; {queries.POINTS}") as connection:
        sides = _sides(warehouse, connection, first, second)
        names = _names(sides)
        found = differences(lambda sql, **values: _rows(connection, queries.with_names(sql, names), **values), protocol)
        if not found:
            raise ValueError(_nothing(connection, sides, protocol))
    one, other = sides
    return Comparison(
        first=first,
        second=second,
        protocol=protocol,
        settings=differing_settings(one.runs, other.runs) if one.runs and other.runs else [],
        differences=found,
        collapses=[
            _collapse(name, one.points[name], other.points[name]) for name in one.points if name in other.points
        ],
        only_first=[name for name in one.points if name not in other.points],
        only_second=[name for name in other.points if name not in one.points],
        unfinished=[side.run for side in sides if not side.runs],
    )


def _sides(warehouse: Warehouse, connection: duckdb.DuckDBPyConnection, first: str, second: str) -> tuple[_Side, _Side]:
    points, ended = {}, {}
    for run in (first, second):
        points[run] = _rows(connection, _TRAJECTORIES, run=run)
        ended[run] = _rows(connection, "SELECT * FROM runs WHERE run = $run", run=run)
        if not points[run]:
            raise unknown_run(warehouse, run)
    has_orders = any(len({row["order_seed"] for row in rows}) > 1 for rows in points.values())

    def side(run: str) -> _Side:
        called = {_identity(row): name for row, name in zip(points[run], _called(points[run], has_orders), strict=True)}
        by_name = {called[_identity(row)]: row for row in points[run]}
        return _Side(run, by_name, {called[_identity(row)]: row for row in ended[run] if _identity(row) in called})

    return side(first), side(second)


def _called(rows: list[Row], has_orders: bool) -> list[str]:
    """What each trajectory is called: its label; its order, if there are several; itself, if that is not enough."""
    names = [f"{row['label']} (order {row['order_seed']})" if has_orders else row["label"] for row in rows]
    times = Counter(names)
    return [f"{name} [{row['trajectory']}]" if times[name] > 1 else name for row, name in zip(rows, names, strict=True)]


def _identity(row: Row) -> tuple[str, int]:
    return row["trajectory"], row["order_seed"]


def _names(sides: tuple[_Side, ...]) -> Mapping[tuple[int, str, str, int], str]:
    return {
        (place, side.run, *_identity(row)): name
        for place, side in enumerate(sides, start=1)
        for name, row in side.points.items()
    }


def _collapse(name: str, first: Row, second: Row) -> Collapse:
    return Collapse(name, first["collapse_at"], first["reason"], second["collapse_at"], second["reason"])


def _nothing(connection: duckdb.DuckDBPyConnection, sides: tuple[_Side, ...], protocol: str) -> str:
    """Why nothing can be compared: what each run has."""
    rows = _rows(connection, queries.with_names(queries.POINTS, _names(sides)), protocol=protocol)
    said = []
    for place, side in enumerate(sides, start=1):
        counts = {
            name: sorted({row["edit_count"] for row in rows if (row["side"], row["name"]) == (place, name)})
            for name in side.points
        }
        has = [f"{name} at {', '.join(f'{at:,}' for at in of) or 'no'} edits" for name, of in counts.items()]
        said.append(f"{side.run} has {'; '.join(has)}")
    return f"compare: the runs have no measure of one method at one edit count in common: {'. '.join(said)}"


def _rows(connection: duckdb.DuckDBPyConnection, sql: str, **values: Any) -> list[Row]:
    return list(connection.sql(sql, params=values).to_arrow_table().to_pylist())
