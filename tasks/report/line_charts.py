"""The report's charts of warning signs and of costs: each shows one column of a view by edit count."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from overedit.tasks.report.data import Row, RunData, is_of

Chart = dict[str, Any]


class ColumnChart(NamedTuple):
    """A chart of a view's column by edit count."""

    group: str
    title: str
    hint: str
    axis: str
    """share: percent; positive: logarithmic or linear, as the reader chooses; amount: linear from 0."""
    view: str
    fixed: dict[str, Any]
    """Column -> the value that rows must have."""
    value: str = "value"
    bounds: tuple[str, str] | None = None
    size: str | None = None
    factor: float = 1


_CHARTS = (
    ColumnChart(
        "signs",
        "Perplexity",
        "Of held-out text.",
        "positive",
        "perplexity_by_edit_count",
        {},
        bounds=("low", "high"),
        size="n",
    ),
    ColumnChart(
        "signs",
        "Change of the edited weights",
        "Norm of the change over the norm before.",
        "positive",
        "weight_norms",
        {"parameter": "all"},
        value="relative_update",
    ),
    ColumnChart(
        "signs",
        "Empty outputs",
        "Generated answers without any text.",
        "share",
        "text_health",
        {},
        value="empty",
        bounds=("empty_low", "empty_high"),
        size="n",
    ),
    ColumnChart(
        "signs",
        "Repetitive outputs",
        "Answers of 8 words or more of which one makes up over half.",
        "share",
        "text_health",
        {},
        value="repetitive",
        bounds=("repetitive_low", "repetitive_high"),
        size="n",
    ),
    ColumnChart(
        "cost",
        "Seconds an edit",
        "Of the step that led to an edit count.",
        "positive",
        "cost_per_edit",
        {},
        value="seconds_per_edit",
    ),
    ColumnChart(
        "cost",
        "Peak memory",
        "Of the step that led to an edit count, in MiB.",
        "amount",
        "cost_per_edit",
        {},
        value="peak_memory_bytes",
        factor=1 / 2**20,
    ),
)

_UPDATES = {  # quantity -> title, hint
    "preservation": (
        "What the edits did to ordinary keys",
        "Root mean square change of an edited projection's output on ordinary text, of the turn with the largest "
        "since the count before.",
    ),
    "update_norm": (
        "Size of the updates",
        "Norm of a turn's update of a projection, the largest since the count before.",
    ),
}


def column_charts(data: RunData) -> Iterable[Chart]:
    """The charts of `_CHARTS`."""
    for chart in _CHARTS:
        rows = data.of_each(chart.view, **chart.fixed)
        scaled = [[_scaled(row, chart) for row in own] for own in rows] if chart.factor != 1 else rows
        lines = [
            series(index, own, value=chart.value, bounds=chart.bounds, size=chart.size)
            for index, own in enumerate(scaled)
        ]
        yield {
            "group": chart.group,
            "title": chart.title,
            "hint": chart.hint,
            "y": chart.axis,
            "lines": {"all": lines},
            "missing": "not measured",
        }


def _scaled(row: Row, chart: ColumnChart) -> Row:
    value = row[chart.value]
    return row | {chart.value: None if value is None else value * chart.factor}


def update_charts(data: RunData) -> Iterable[Chart]:
    """Charts of the size and the effect of the updates, if a method logs them."""
    for quantity, (title, hint) in _UPDATES.items() if data.updates else ():
        rows = [
            [row for row in data.updates if is_of(row, trajectory) and row["quantity"] == quantity]
            for trajectory in data.trajectories
        ]
        lines = [series(index, own, bounds=None, size=None) for index, own in enumerate(rows)]
        yield {"group": "signs", "title": title, "hint": hint, "y": "positive", "lines": {"all": lines}}


def speed_charts(data: RunData) -> Iterable[Chart]:
    """A chart of the seconds per edit along the trajectory; the view groups turns into some fifty points."""
    if data.views["edit_speed"]:
        rows = data.of_each("edit_speed")
        value = "seconds_per_1000_edits"
        lines = [series(i, own, x="edits", value=value, bounds=None, size="turns") for i, own in enumerate(rows)]
        hint = "The median turn of each stretch with one leading digit (10, 20, ... 100, 200, ...)."
        title = "Seconds per 1,000 edits"
        yield {"group": "cost", "title": title, "hint": hint, "y": "positive", "lines": {"all": lines}}


def series(
    line: int,
    rows: list[Row],
    *,
    x: str = "edit_count",
    value: str = "value",
    bounds: tuple[str, str] | None = ("low", "high"),
    size: str | None = "n",
) -> dict[str, Any]:
    """One line of a chart.

    Args:
        line: Index of the trajectory.
        rows: Its rows, in the order of the points.
        x: The column of the x values.
        value: The column of the y values; values that are not finite become null.
        bounds: The columns of the interval.
        size: The column of the number of items.
    """
    points = [
        {
            "x": row[x],
            "y": _finite(row[value]),
            "low": _finite(row[bounds[0]]) if bounds else None,
            "high": _finite(row[bounds[1]]) if bounds else None,
            "n": row[size] if size else None,
        }
        for row in rows
    ]
    return {"line": line, "points": points}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
