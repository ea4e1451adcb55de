"""The report's charts as data: what the page's scripts draw."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from tasks.report_data import Line, Row, RunData, is_of
from tasks.report_maps import case_data, heat_data, scatter_data

Chart = dict[str, Any]

_MEASURES = {
    "reliability": "Edit prompts answered with the new fact.",
    "generalization": "Other phrasings of them answered with the new fact.",
    "locality": "Prompts about other facts answered as before editing.",
}


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
_UNITS = {"share": "share", "perplexity": "positive"}
"""A preset's unit -> how its axis is; any other unit is an amount."""


def chart_data(data: RunData) -> dict[str, Any]:
    """All that the page's scripts need; no number in it is infinite or not a number."""
    lines = []
    for line in data.lines:
        collapse, orders = data.one(line, "collapse_point"), [o.order_seed for o in data.lines if o[0] == line[0]]
        lines.append(
            {
                "name": line.name,
                "color": line.color,
                "order": sorted(orders).index(line.order_seed),
                "collapse_at": collapse["collapse_at"] if collapse else None,
            }
        )
    charts = [
        *(_measure_chart(data, "curve", measure, hint) for measure, hint in _MEASURES.items()),
        *_preset_charts(data),
        _capability_chart(data),
        _retention_chart(data),
        _portability_chart(data),
        *_signs(data),
        *_updates(data),
        *_speed(data),
    ]
    return {
        "lines": lines,
        "protocols": list(data.protocols),
        "presets": list(data.presets),
        "has_orders": any("orders" in chart for chart in charts),
        "edit_counts": list(data.edit_counts),
        "charts": charts,
        "heat": heat_data(data),
        "scatter": scatter_data(data),
        "cases": case_data(data),
    }


def _measure_chart(data: RunData, group: str, measure: str, hint: str) -> Chart:
    lines = {
        protocol: [
            series(index, data.of(line, "reliability_by_edit_count", measure=measure, protocol=protocol))
            for index, line in enumerate(data.lines)
        ]
        for protocol in data.protocols
    }
    chart = {"group": group, "title": measure.capitalize(), "hint": hint, "y": "share", "lines": lines, "by": "protocol"}
    return chart | _orders(data, measure, data.protocols)


def _portability_chart(data: RunData) -> Chart:
    chart = _measure_chart(data, "retention", "portability", "Prompts whose answers follow from the new facts.")
    return chart | {"missing": "the data has no portability prompts that can be scored under this protocol"}


def _preset_charts(data: RunData) -> Iterable[Chart]:
    """The measures as a paper takes them, each shown while its preset is chosen."""
    kinds = dict.fromkeys((row["preset"], row["measure"], row["unit"]) for row in data.views["preset_scores"])
    for preset, measure, unit in kinds:
        rows = [data.of(line, "preset_scores", preset=preset, measure=measure) for line in data.lines]
        reasons = {row["reason"] for of_line in rows for row in of_line if row["value"] is None and row["reason"]}
        title = measure.replace("_", " ").capitalize()
        yield {
            "group": "curve",
            "title": title,
            "hint": f"As in {preset}{'' if unit == 'share' else f', in {unit}' if unit == 'bits' else ''}.",
            "y": _UNITS.get(unit, "amount"),
            "lines": {"all": [series(index, of_line) for index, of_line in enumerate(rows)]},
            "preset": preset,
            "missing": "; ".join(sorted(reasons)) or "not measured",
        }


def _capability_chart(data: RunData) -> Chart:
    rows = [data.of(line, "capability_by_edit_count", task="mean") for line in data.lines]
    chart = {
        "group": "curve",
        "title": "Capability",
        "hint": "Mean of the general benchmarks; the same under every protocol.",
        "y": "share",
        "lines": {"all": [series(index, of_line) for index, of_line in enumerate(rows)]},
        "missing": "not measured",
    }
    chances = {row["chance"] for line in rows for row in line}
    if len(chances) == 1 and None not in chances:
        chart["reference"] = {"y": chances.pop(), "name": "chance"}
    return chart | _orders(data, "capability", (None,))


def _retention_chart(data: RunData) -> Chart:
    last = {line: _last_rows(data, line) for line in data.lines}
    lines = {
        protocol: [
            series(
                index,
                [row | {"x": data.ages.index(row["age"])} for row in last[line] if row["protocol"] == protocol],
                x="x",
            )
            for index, line in enumerate(data.lines)
        ]
        for protocol in data.protocols
    }
    return {
        "group": "retention",
        "title": "Reliability by age",
        "hint": "Edit prompts at the last edit count; left the newest edits, right the oldest.",
        "y": "share",
        "lines": lines,
        "by": "protocol",
        "categories": list(data.ages),
    }


def _last_rows(data: RunData, line: Line) -> list[Row]:
    rows = data.of(line, "retention_by_age")
    last = max((row["edit_count"] for row in rows), default=0)
    return [row for row in rows if row["edit_count"] == last]


def _orders(data: RunData, measure: str, protocols: Iterable[str | None]) -> Chart:
    """The mean over orders of the edits and the range of them, where a trajectory has several; else nothing."""
    found: dict[str, list[dict[str, Any]]] = {}
    trajectories = dict.fromkeys(line.trajectory for line in data.lines)
    for protocol in protocols:
        for trajectory in trajectories:
            wanted = (trajectory, measure, protocol)
            rows = [
                row
                for row in data.views["seed_bands"]
                if (row["trajectory"], row["measure"], row["protocol"]) == wanted and row["num_orders"] > 1
            ]
            members = [index for index, line in enumerate(data.lines) if line.trajectory == trajectory]
            if rows:
                points = series(members[0], rows, value="mean", bounds=("lowest", "highest"), size="num_orders")
                name = {"name": rows[0]["label"], "members": members}
                found.setdefault(protocol or "all", []).append(points | name)
    return {"orders": found} if found else {}


def _signs(data: RunData) -> Iterable[Chart]:
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


def _updates(data: RunData) -> Iterable[Chart]:
    for quantity, (title, hint) in _UPDATES.items() if data.updates else ():
        rows = [
            [row for row in data.updates if is_of(row, line) and row["quantity"] == quantity] for line in data.lines
        ]
        lines = [series(index, of_line, bounds=None, size=None) for index, of_line in enumerate(rows)]
        yield {"group": "signs", "title": title, "hint": hint, "y": "positive", "lines": {"all": lines}}


def _speed(data: RunData) -> Iterable[Chart]:
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
