"""The data of the leaderboard and of the curves: every trajectory of every run, with its numbers."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from overedit.tasks.runs.run import display_names
from overedit.tasks.site.queries import SiteRows
from overedit.tasks.warehouse.tables import Row
from overedit.tasks.warehouse.vocabulary import PROTOCOLS


def numbers_data(rows: SiteRows, reports: Mapping[str, str]) -> dict[str, Any]:
    """The runs and trajectories, ready for JSON.

    Args:
        rows: The rows of the site.
        reports: Run -> address of its report, for runs that have one.
    """
    asked = {row["protocol"] for row in rows.points}
    series = _series(rows.points)
    details = {row["run"]: row for row in rows.runs}
    recorded = {row["run"] for row in rows.instances}
    runs: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for run, group in groupby(rows.trajectories, key=lambda row: row["run"]):
        own = list(group)
        names = display_names(own, show_order=len({row["order_seed"] for row in own}) > 1)
        lines += [_line(row, name, len(runs), series[_identity(row)]) for row, name in zip(own, names, strict=True)]
        runs.append(_run(run, own, details.get(run, {}), reports.get(run)) | {"recorded": run in recorded})
    return {
        "protocols": [name for name in PROTOCOLS if name in asked],
        "edit_counts": sorted({row["edit_count"] for row in rows.points}),
        "runs": runs,
        "lines": lines,
    }


def _identity(row: Row) -> tuple[str, str, int]:
    return row["run"], row["trajectory"], row["order_seed"]


def _series(points: Iterable[Row]) -> defaultdict[tuple[str, str, int], dict[str, list[list[Any]]]]:
    """Trajectory -> measure, with its protocol -> [edit count, value, low, high, n]; no value: it is not finite."""
    found: defaultdict[tuple[str, str, int], dict[str, list[list[Any]]]] = defaultdict(dict)
    for row in points:
        name = " ".join(filter(None, (row["measure"], row["protocol"])))
        point = [row["edit_count"], short(row["value"]), short(row["low"]), short(row["high"]), row["n"]]
        found[_identity(row)].setdefault(name, []).append(point)
    return found


def _line(row: Row, name: str, run: int, series: dict[str, list[list[Any]]]) -> dict[str, Any]:
    return {
        "id": f"{row['run']}/{row['trajectory']}/{row['order_seed']}",
        "run": run,
        "label": name,
        "method": row["method"],
        "method_name": row["label"],
        "model": row["model"],
        "dataset": row["dataset"],
        "status": row["status"],
        "error": row["error"],
        "measured": row["measured_up_to"],
        "collapse_at": row["collapse_at"],
        "reason": row["reason"],
        "series": series,
    }


def _run(run: str, trajectories: list[Row], details: Row, report: str | None) -> dict[str, Any]:
    engine = details.get("engine")
    versions = parsed(details.get("versions"))
    release = (versions.get(engine) or versions.get(f"{engine}-cpu")) if isinstance(versions, dict) else None
    return {
        "name": run,
        "report": report,
        "models": sorted({row["model"] for row in trajectories}),
        "datasets": sorted({row["dataset"] for row in trajectories}),
        "engine": f"{engine} {release}" if release else engine,
        "hardware": details.get("hardware"),
        "begun": minute(details.get("started_at")),
        "failed": sum(row["status"] == "failed" for row in trajectories),
        "unfinished": sum(row["status"] is None for row in trajectories),
    }


def short(value: float | None) -> float | None:
    """A number of six significant digits; None if there is none, or if it is not finite."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


def minute(time: datetime | None) -> str | None:
    """A time to the minute in UTC, e.g. `2026-11-30 03:15`, whatever the zone of this machine; None without one."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M") if time is not None else None


def parsed(text: str | None) -> Any:
    """The content of a text that should be JSON; the text itself if it is not, None without one."""
    try:
        return None if text is None else json.loads(text)
    except json.JSONDecodeError:
        return text
