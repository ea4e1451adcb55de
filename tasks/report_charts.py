"""The report's charts as data: what `report_page.js` draws."""

from __future__ import annotations

import math
from typing import Any

from tasks.report_data import Line, Row, RunData

_MEASURES = {
    "reliability": "Edit prompts answered with the new fact.",
    "generalization": "Other phrasings of them answered with the new fact.",
    "locality": "Prompts about other facts answered as before editing.",
}
_SIGNS: tuple[
    tuple[Any, ...], ...
] = (  # title, hint, axis, view, its fixed values, value column, low and high columns, n column
    (
        "Perplexity",
        "Of held-out text; logarithmic.",
        "log",
        "perplexity_by_edit_count",
        {},
        "value",
        ("low", "high"),
        "n",
    ),
    (
        "Change of the edited weights",
        "Norm of the change over the norm before.",
        "linear",
        "weight_norms",
        {"parameter": "all"},
        "relative_update",
        None,
        None,
    ),
    (
        "Empty outputs",
        "Generated answers with nothing in them.",
        "share",
        "text_health",
        {},
        "empty",
        ("empty_low", "empty_high"),
        "n",
    ),
    (
        "Repetitive outputs",
        "Answers of 8 words or more of which one makes up over half.",
        "share",
        "text_health",
        {},
        "repetitive",
        ("repetitive_low", "repetitive_high"),
        "n",
    ),
)

_UPDATES = {  # quantity -> title, hint
    "preservation": (
        "What the edits did to ordinary keys",
        "Root mean square change of an edited projection's output on ordinary text, of the turn with the largest "
        "since the count before; logarithmic.",
    ),
    "update_norm": (
        "Size of the updates",
        "Norm of a turn's update of a projection, the largest since the count before; logarithmic.",
    ),
}


def chart_data(data: RunData) -> dict[str, Any]:
    """All that the page's script needs; no number in it is infinite or not a number."""
    lines = []
    for line in data.lines:
        collapse = data.one(line, "collapse_point")
        lines.append({"name": line.name, "collapse_at": collapse["collapse_at"] if collapse else None})
    return {
        "lines": lines,
        "protocols": list(data.protocols),
        "edit_counts": list(data.edit_counts),
        "charts": [
            *_measure_charts(data),
            _capability_chart(data),
            _retention_chart(data),
            _portability_chart(data),
            *_signs(data),
            *_updates(data),
            *_speed(data),
        ],
    }


def _measure_charts(data: RunData) -> list[dict[str, Any]]:
    return [_measure_chart(data, measure, hint) for measure, hint in _MEASURES.items()]


def _measure_chart(data: RunData, measure: str, hint: str) -> dict[str, Any]:
    lines = {
        protocol: [
            _series(index, data.of(line, "reliability_by_edit_count", measure=measure, protocol=protocol))
            for index, line in enumerate(data.lines)
        ]
        for protocol in data.protocols
    }
    group = "retention" if measure == "portability" else "curve"
    return _chart(group, measure.capitalize(), hint, "share", lines, by_protocol=True)


def _portability_chart(data: RunData) -> dict[str, Any]:
    chart = _measure_chart(data, "portability", "Prompts whose answers follow from the new facts.")
    return chart | {"lines_missing": "the data has no portability prompts that can be scored under this protocol"}


def _capability_chart(data: RunData) -> dict[str, Any]:
    rows = [data.of(line, "capability_by_edit_count", task="mean") for line in data.lines]
    chart = _chart(
        "curve",
        "Capability",
        "Mean of the general benchmarks; the same under every protocol.",
        "share",
        _all_lines(rows),
    )
    chances = {row["chance"] for line in rows for row in line}
    if len(chances) == 1 and None not in chances:
        chart["reference"] = {"y": chances.pop(), "name": "chance"}
    return chart | {"lines_missing": "not measured"}


def _retention_chart(data: RunData) -> dict[str, Any]:
    last = {line: _last_rows(data, line) for line in data.lines}
    ages = {row["age_low"]: row["age"] for rows in last.values() for row in rows}
    order = sorted(ages)
    lines = {
        protocol: [
            _series(
                index,
                [row | {"x": order.index(row["age_low"])} for row in last[line] if row["protocol"] == protocol],
                x="x",
            )
            for index, line in enumerate(data.lines)
        ]
        for protocol in data.protocols
    }
    chart = _chart(
        "retention",
        "Reliability by age",
        "Edit prompts at the last edit count; left the newest edits, right the oldest.",
        "share",
        lines,
        by_protocol=True,
    )
    return chart | {"categories": [ages[age] for age in order]}


def _last_rows(data: RunData, line: Line) -> list[Row]:
    rows = data.of(line, "retention_by_age")
    last = max((row["edit_count"] for row in rows), default=0)
    return [row for row in rows if row["edit_count"] == last]


def _signs(data: RunData) -> list[dict[str, Any]]:
    charts = []
    for title, hint, axis, view, fixed, value, bounds, size in _SIGNS:
        series = [
            _series(index, data.of(line, view, **fixed), value=value, bounds=bounds, size=size)
            for index, line in enumerate(data.lines)
        ]
        charts.append(_chart("signs", title, hint, axis, {"all": series}) | {"lines_missing": "not measured"})
    return charts


def _updates(data: RunData) -> list[dict[str, Any]]:
    charts = []
    for quantity, (title, hint) in _UPDATES.items() if data.updates else ():
        rows = [[row for row in data.updates if _is(row, line, quantity)] for line in data.lines]
        lines = [_series(index, of_line, bounds=None, size=None) for index, of_line in enumerate(rows)]
        charts.append(_chart("signs", title, hint, "log", {"all": lines}))
    return charts


def _speed(data: RunData) -> list[dict[str, Any]]:
    """Seconds of editing along the trajectory; some fifty points however many turns, as the view groups them."""
    if not data.views["edit_speed"]:
        return []
    rows = [data.of(line, "edit_speed") for line in data.lines]
    value = "seconds_per_1000_edits"
    lines = [_series(i, some, x="edits", value=value, bounds=None, size="turns") for i, some in enumerate(rows)]
    hint = (
        "Of editing; the median turn of each stretch with one leading digit (10, 20, ... 100, 200, ...); logarithmic."
    )
    return [_chart("signs", "Seconds per 1,000 edits", hint, "log", {"all": lines})]


def _is(row: Row, line: Line, quantity: str) -> bool:
    return (row["trajectory"], row["order_seed"], row["quantity"]) == (line.trajectory, line.order_seed, quantity)


def _chart(
    group: str, title: str, hint: str, axis: str, lines: dict[str, list[dict[str, Any]]], *, by_protocol: bool = False
) -> dict[str, Any]:
    return {"group": group, "title": title, "hint": hint, "y": axis, "lines": lines, "by_protocol": by_protocol}


def _all_lines(rows: list[list[Row]]) -> dict[str, list[dict[str, Any]]]:
    return {"all": [_series(index, of_line) for index, of_line in enumerate(rows)]}


def _series(
    line: int,
    rows: list[Row],
    *,
    x: str = "edit_count",
    value: str = "value",
    bounds: tuple[str, str] | None = ("low", "high"),
    size: str | None = "n",
) -> dict[str, Any]:
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
