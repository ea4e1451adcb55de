"""The data of the report's charts, which the scripts of the page draw."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from overedit.tasks.report.data import RunData
from overedit.tasks.report.line_charts import Chart, column_charts, series, speed_charts, update_charts
from overedit.tasks.report.page_data import case_data, heat_data, scatter_data

_MEASURES = {
    "reliability": "Edit prompts answered with the new fact.",
    "generalization": "Other phrasings of them answered with the new fact.",
    "locality": "Prompts about other facts answered as before editing.",
}


_UNITS = {"share": "share", "perplexity": "positive"}
"""A preset's unit -> the kind of its axis; any other unit is an amount."""


def chart_data(data: RunData) -> dict[str, Any]:
    """The data of the page's scripts, ready for JSON: every number is finite."""
    lines = []
    for trajectory in data.trajectories:
        collapse = data.one(trajectory, "collapse_point")
        orders = [one.order_seed for one in data.trajectories if one.id == trajectory.id]
        lines.append(
            {
                "name": trajectory.name,
                "color": trajectory.color,
                "order": sorted(orders).index(trajectory.order_seed),
                "collapse_at": collapse["collapse_at"] if collapse else None,
            }
        )
    charts = [
        *(_measure_chart(data, "curve", measure, hint) for measure, hint in _MEASURES.items()),
        *_preset_charts(data),
        _capability_chart(data),
        _retention_chart(data),
        _portability_chart(data),
        *column_charts(data),
        *update_charts(data),
        *speed_charts(data),
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
            series(index, own)
            for index, own in enumerate(data.of_each("reliability_by_edit_count", measure=measure, protocol=protocol))
        ]
        for protocol in data.protocols
    }
    chart = {
        "group": group,
        "title": measure.capitalize(),
        "hint": hint,
        "y": "share",
        "lines": lines,
        "by": "protocol",
    }
    return chart | _orders(data, measure, data.protocols)


def _portability_chart(data: RunData) -> Chart:
    chart = _measure_chart(data, "retention", "portability", "Prompts whose answers follow from the new facts.")
    return chart | {"missing": "the data has no portability prompts that can be scored under this protocol"}


def _preset_charts(data: RunData) -> Iterable[Chart]:
    """A chart per preset and measure, which the page shows while the preset is chosen."""
    kinds = dict.fromkeys((row["preset"], row["measure"], row["unit"]) for row in data.views["preset_scores"])
    for preset, measure, unit in kinds:
        rows = data.of_each("preset_scores", preset=preset, measure=measure)
        reasons = {row["reason"] for own in rows for row in own if row["value"] is None and row["reason"]}
        title = measure.replace("_", " ").capitalize()
        yield {
            "group": "curve",
            "title": title,
            "hint": f"As in {preset}{'' if unit == 'share' else f', in {unit}' if unit == 'bits' else ''}.",
            "y": _UNITS.get(unit, "amount"),
            "lines": {"all": [series(index, own) for index, own in enumerate(rows)]},
            "preset": preset,
            "missing": "; ".join(sorted(reasons)) or "not measured",
        }


def _capability_chart(data: RunData) -> Chart:
    rows = data.of_each("capability_by_edit_count", task="mean")
    chart = {
        "group": "curve",
        "title": "Capability",
        "hint": "Mean of the general benchmarks; the same under every protocol.",
        "y": "share",
        "lines": {"all": [series(index, own) for index, own in enumerate(rows)]},
        "missing": "not measured",
    }
    chances = {row["chance"] for own in rows for row in own}
    if len(chances) == 1 and None not in chances:
        chart["reference"] = {"y": chances.pop(), "name": "chance"}
    return chart | _orders(data, "capability", (None,))


def _retention_chart(data: RunData) -> Chart:
    last = {trajectory: data.at_end(trajectory, "retention_by_age") for trajectory in data.trajectories}
    lines = {
        protocol: [
            series(
                index,
                [row | {"x": data.ages.index(row["age"])} for row in last[trajectory] if row["protocol"] == protocol],
                x="x",
            )
            for index, trajectory in enumerate(data.trajectories)
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


def _orders(data: RunData, measure: str, protocols: Iterable[str | None]) -> Chart:
    """The key `orders` of a chart: mean and range over the orders of the edits; empty if no trajectory has several."""
    found: dict[str, list[dict[str, Any]]] = {}
    ids = dict.fromkeys(trajectory.id for trajectory in data.trajectories)
    for protocol in protocols:
        for id in ids:
            wanted = (id, measure, protocol)
            rows = [
                row
                for row in data.views["seed_bands"]
                if (row["trajectory"], row["measure"], row["protocol"]) == wanted and row["num_orders"] > 1
            ]
            members = [index for index, one in enumerate(data.trajectories) if one.id == id]
            if rows:
                points = series(members[0], rows, value="mean", bounds=("lowest", "highest"), size="num_orders")
                name = {"name": rows[0]["label"], "members": members}
                found.setdefault(protocol or "all", []).append(points | name)
    return {"orders": found} if found else {}
