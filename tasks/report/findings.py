"""The report's warnings, and its table of what was left of the edits after one more step."""

from __future__ import annotations

import logging
from html import escape

from overedit.tasks.report.data import Row, RunData, Trajectory
from overedit.tasks.report.formatting import markdown_table, rounded
from overedit.tasks.report.html import DASH, base_or, by_view, key, protocol_name, table

logger = logging.getLogger(__name__)

HEADINGS = ("Method", "Edits", "After", "Reliability", "Generalization", "Locality", "Capability", "Perplexity")
_SHARES = ("reliability", "generalization", "locality", "capability")


def warning_lines(data: RunData) -> list[str]:
    """The warnings of a run in words, each with its trajectory."""
    return [
        f"{trajectory.name}: {row['text']}"
        for trajectory in data.trajectories
        for row in data.of(trajectory, "warnings")
    ]


def log_warnings(data: RunData) -> None:
    """Log each warning of a run."""
    for line in warning_lines(data):
        logger.warning("run %r: %s", data.run, line)


def warning_list(data: RunData) -> str:
    """The warnings as an HTML list; empty without one."""
    lines = "\n".join(f"<li>{escape(line)}</li>" for line in warning_lines(data))
    return f'<ul class="misleading" aria-label="Warnings">\n{lines}\n</ul>' if lines else ""


def durability(data: RunData) -> str:
    """What each step left of the edits, a table for each protocol; empty where no step was taken."""
    if not data.views["durability"]:
        return ""
    parts = []
    for protocol in data.protocols or ("generated",):
        rows = [
            [key(trajectory), base_or(count), escape(after or "the edits alone"), *(_html(row) for row in rows)]
            for trajectory, count, after, rows in _lines(data, protocol)
        ]
        parts.append(by_view(protocol, protocol_name(protocol), table(HEADINGS, rows, text_columns=(0, 2))))
    return "\n".join(parts)


def durability_markdown(data: RunData, protocol: str = "generated") -> str:
    """The same as a Markdown table, under one protocol; empty where no step was taken."""
    cells = [
        [trajectory.name, f"{count:,}", after or "the edits alone", *(_text(row) for row in rows)]
        for trajectory, count, after, rows in _lines(data, protocol)
    ]
    return markdown_table(HEADINGS, cells, text_columns=(0, 2)) if cells else ""


Line = tuple[Trajectory, int, str | None, list[Row | None]]
"""A trajectory, an edit count, a step (None for the edited model itself), and a row for each measure."""


def _lines(data: RunData, protocol: str) -> list[Line]:
    found: list[Line] = []
    for trajectory in data.trajectories:
        rows = data.of(trajectory, "durability")
        for count in sorted({row["edit_count"] for row in rows}):
            steps = list(dict.fromkeys(row["after"] for row in rows if row["edit_count"] == count))
            of_steps = [_of_step(rows, count, step, protocol) for step in steps]
            before = [next((_before(row) for row in column if row), None) for column in zip(*of_steps, strict=True)]
            found.append((trajectory, count, None, before))
            found += [(trajectory, count, step, of_step) for step, of_step in zip(steps, of_steps, strict=True)]
    return found


def _of_step(rows: list[Row], count: int, step: str, protocol: str) -> list[Row | None]:
    own = {
        row["measure"]: row
        for row in rows
        if row["edit_count"] == count and row["after"] == step and row["protocol"] in (protocol, None)
    }
    return [own.get(measure) for measure in (*_SHARES, "perplexity")]


def _before(row: Row) -> Row:
    """The edited model's own number, which has no difference."""
    return row | {"value": row["before"], "difference": None}


def _html(row: Row | None) -> str:
    number, change = _number_and_change(row)
    return f"{number}<small>{change}</small>" if change else number


def _text(row: Row | None) -> str:
    number, change = _number_and_change(row)
    return f"{number} ({change})" if change else number


def _number_and_change(row: Row | None) -> tuple[str, str]:
    """A number, in percent if it is a share, and the interval of its change by the step."""
    if row is None or row["value"] is None:
        return DASH, ""
    is_share = row["measure"] in _SHARES
    number = f"{100 * row['value']:.1f}" if is_share else rounded(row["value"])
    if row["difference"] is None or row["low"] is None:
        return number, ""
    low, high = (100 * row[name] if is_share else row[name] for name in ("low", "high"))
    return number, f"{low:+.1f} to {high:+.1f}" if is_share else f"{low:+.3g} to {high:+.3g}"
