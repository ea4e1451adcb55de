"""What the report and the picture show: the rows of the views for one run, and how its lines are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import duckdb

from tasks.warehouse import Warehouse

Row = dict[str, Any]

VIEWS = (
    "leaderboard",
    "collapse_point",
    "reliability_by_edit_count",
    "capability_by_edit_count",
    "retention_by_age",
    "perplexity_by_edit_count",
    "weight_norms",
    "text_health",
    "cost_per_edit",
    "edit_speed",
)
"""The views that the report reads, each as `SELECT * FROM view WHERE run = ...`."""
_NO_CURVES = ("leaderboard", "collapse_point", "edit_speed")
PROTOCOLS = ("generated", "teacher_forced", "probability")

_RUNS = "SELECT * FROM runs WHERE run = $run ORDER BY started_at, trajectory, order_seed"
SAMPLES = """
WITH asked AS (
    SELECT
        trajectory, order_seed, edit_count, position, prompt, target, output, score,
        edit_count = max(edit_count) OVER (PARTITION BY trajectory, order_seed) AS is_last
    FROM outcomes
    WHERE run = $run AND probe = 'edit' AND protocol = 'generated' AND method <> 'none'
)
SELECT * EXCLUDE (is_last), row_number() OVER (PARTITION BY trajectory, order_seed ORDER BY position) AS place,
    count(*) OVER (PARTITION BY trajectory, order_seed) AS places
FROM asked WHERE is_last
QUALIFY place IN (1, (places + 1) // 2, places)
ORDER BY position, trajectory, order_seed
"""
"""The first, middle and last edit that was asked, and what each method answered at its last edit count."""
UPDATES = """
SELECT trajectory, order_seed, edit_count, quantity, max(value) AS value
FROM diagnostics_by_turn
WHERE run = $run AND site IS NOT NULL AND quantity IN ('preservation', 'update_norm') AND value > 0
GROUP BY ALL
ORDER BY edit_count
"""
"""Of the turns between two edit counts and the projections edited, the one with the largest update."""


class Line(NamedTuple):
    """One trajectory as charts and tables show it."""

    trajectory: str
    order_seed: int
    name: str
    """The method's label; with the ordering's seed where a run has several."""


class RunData(NamedTuple):
    """All that is shown of a run."""

    run: str
    lines: tuple[Line, ...]
    """In the order of the leaderboard."""
    runs: list[Row]
    samples: list[Row]
    updates: list[Row]
    """What the turns' updates did to ordinary keys; none where no method told."""
    views: dict[str, list[Row]]

    def of(self, line: Line, view: str, **values: Any) -> list[Row]:
        """A view's rows of one trajectory that have these values, in the view's order."""
        wanted = {"trajectory": line.trajectory, "order_seed": line.order_seed} | values
        return [row for row in self.views[view] if all(row[key] == value for key, value in wanted.items())]

    def one(self, line: Line, view: str, **values: Any) -> Row | None:
        """The only such row, or None."""
        rows = self.of(line, view, **values)
        return rows[0] if rows else None

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols under which anything was asked, generated first."""
        found = {row["protocol"] for row in self.views["reliability_by_edit_count"]}
        return tuple(protocol for protocol in PROTOCOLS if protocol in found)

    @property
    def edit_counts(self) -> tuple[int, ...]:
        """Every edit count at which something was measured, 0 included."""
        return tuple(sorted({row["edit_count"] for _, rows in self._curves() for row in rows}))

    def _curves(self) -> Iterator[tuple[str, list[Row]]]:
        return ((view, rows) for view, rows in self.views.items() if view not in _NO_CURVES)


def collect(warehouse: Warehouse, run: str) -> RunData:
    """Read a run's rows.

    Raises:
        ValueError: The warehouse has no trajectory of that run.
    """
    with warehouse.connect(run=run) as connection:
        views = {view: _read(connection, f"SELECT * FROM {view} WHERE run = $run", run) for view in VIEWS}
        if not views["leaderboard"]:
            known = warehouse.query("SELECT DISTINCT run FROM trajectories ORDER BY run")["run"].to_pylist()
            raise ValueError(f"run: {run!r} is not in {warehouse.root}; its runs are: {', '.join(known) or 'none yet'}")
        runs, samples, updates = (_read(connection, sql, run) for sql in (_RUNS, SAMPLES, UPDATES))
    return RunData(run, _lines(views["leaderboard"]), runs, samples, updates, views)


def _read(connection: duckdb.DuckDBPyConnection, sql: str, run: str) -> list[Row]:
    return list(connection.sql(sql, params={"run": run}).to_arrow_table().to_pylist())


def _lines(leaderboard: list[Row]) -> tuple[Line, ...]:
    has_orderings = len({row["order_seed"] for row in leaderboard}) > 1
    names = [f"{row['label']} (order {row['order_seed']})" if has_orderings else row["label"] for row in leaderboard]
    doubled = {name for name, times in Counter(names).items() if times > 1}
    return tuple(
        Line(row["trajectory"], row["order_seed"], f"{name} [{row['trajectory']}]" if name in doubled else name)
        for row, name in zip(leaderboard, names, strict=True)
    )
