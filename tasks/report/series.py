"""A line of a chart, as data."""

from __future__ import annotations

import math
from typing import Any

from overedit.tasks.report.data import Row


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
