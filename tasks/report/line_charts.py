"""The report's charts of signs and costs: one column of one view by edit count each."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from overedit.tasks.report.data import Row, RunData, is_of

Chart = dict[str, Any]


class Sign(NamedTuple):
    """A chart of one view's column by edit count."""

    group: str
    title: str
    hint: str
    axis: str
    """share: percent; positive: logarithmic or linear, as the reader likes; amount: linear, from 0."""
    view: str
    fixed: dict[str, Any]
    value: str = "value"
    bounds: tuple[str, str] | None = None
    size: str | None = None
    factor: float = 1


_SIGNS = (
    Sign(
        "signs",
        "Perplexity",
        "Of held-out text.",
        "positive",
        "perplexity_by_edit_count",
        {},
        bounds=("low", "high"),
        size="n",
    ),
    Sign(
        "signs",
        "Change of the edited weights",
        "Norm of the change over the norm before.",
        "positive",
        "weight_norms",
        {"parameter": "all"},
        value="relative_update",
    ),
    Sign(
        "signs",
        "Empty outputs",
        "Generated answers with nothing in them.",
        "share",
        "text_health",
        {},
        value="empty",
        bounds=("empty_low", "empty_high"),
        size="n",
    ),
    Sign(
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
    Sign(
        "cost",
        "Seconds an edit",
        "Of the step that led to an edit count.",
        "positive",
        "cost_per_edit",
        {},
        value="seconds_per_edit",
    ),
    Sign(
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


def sign_charts(data: RunData) -> Iterable[Chart]:
    """The charts of _SIGNS."""
    for sign in _SIGNS:
        rows = [data.of(line, sign.view, **sign.fixed) for line in data.lines]
        scaled = [[_scaled(row, sign) for row in of_line] for of_line in rows] if sign.factor != 1 else rows
        lines = [
            series(index, of_line, value=sign.value, bounds=sign.bounds, size=sign.size)
            for index, of_line in enumerate(scaled)
        ]
        yield {
            "group": sign.group,
            "title": sign.title,
            "hint": sign.hint,
            "y": sign.axis,
            "lines": {"all": lines},
            "missing": "not measured",
        }


def _scaled(row: Row, sign: Sign) -> Row:
    value = row[sign.value]
    return row | {sign.value: None if value is None else value * sign.factor}


def update_charts(data: RunData) -> Iterable[Chart]:
    """What the updates did, where a method tells it."""
    for quantity, (title, hint) in _UPDATES.items() if data.updates else ():
        rows = [
            [row for row in data.updates if is_of(row, line) and row["quantity"] == quantity] for line in data.lines
        ]
        lines = [series(index, of_line, bounds=None, size=None) for index, of_line in enumerate(rows)]
        yield {"group": "signs", "title": title, "hint": hint, "y": "positive", "lines": {"all": lines}}


def speed_charts(data: RunData) -> Iterable[Chart]:
    """Seconds of editing along the trajectory; some fifty points however many turns, as the view groups them."""
    if data.views["edit_speed"]:
        rows = [data.of(line, "edit_speed") for line in data.lines]
        value = "seconds_per_1000_edits"
        lines = [series(i, some, x="edits", value=value, bounds=None, size="turns") for i, some in enumerate(rows)]
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
    """One line of a chart."""
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
