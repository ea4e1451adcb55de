"""A run's trajectories as experiment trackers take them: parameters, tags, and metrics by edit count."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from overedit.editing.storage.checksums import digest
from overedit.tasks.runs.run import display_names, unknown_run
from overedit.tasks.warehouse.tables import Row
from overedit.tasks.warehouse.views import query_sql
from overedit.tasks.warehouse.warehouse import Warehouse

_NOT_IN_NAMES = re.compile(r"[^\w./ :-]", re.ASCII)  # what MLflow accepts in the name of a metric or parameter
_LEFT_OUT = ("name", "home", "methods")  # of the run's configuration: a trajectory has one method, as `method`


class TrackedRun(NamedTuple):
    """A trajectory: what a tracker calls a run."""

    id: str
    """Digest of the parameters and metrics: the same rows are the same run of the tracker."""
    name: str
    parameters: dict[str, Any]
    """Dotted key -> value of the configuration; `method.learning_rate` is the method's own."""
    tags: dict[str, str]
    metrics: dict[int, dict[str, float]]
    """Edit count -> name of a number -> its value, which may be infinite or NaN."""
    started_at: datetime | None
    failed: bool


def tracked_runs(warehouse: Warehouse, run: str) -> list[TrackedRun]:
    """The trajectories of a run.

    Raises:
        ValueError: There is no such run, or it is a scan.
    """
    queries = [query_sql(f"export/{name}") for name in ("trajectories", "metrics")]
    with warehouse.connect(sql=" ".join(queries)) as connection:
        trajectories, numbers = (
            connection.sql(query, params={"run": run}).to_arrow_table().to_pylist() for query in queries
        )
    if not trajectories:
        raise unknown_run(warehouse, run)
    metrics: defaultdict[tuple[str, int], dict[int, dict[str, float]]] = defaultdict(dict)
    for row in numbers:
        at = metrics[row["trajectory"], row["order_seed"]].setdefault(row["edit_count"], {})
        at[_name(row["name"])] = row["value"]
    names = display_names(trajectories, show_order=len({row["order_seed"] for row in trajectories}) > 1)
    return [
        _tracked(row, f"{run}: {name}", dict(metrics[row["trajectory"], row["order_seed"]]))
        for row, name in zip(trajectories, names, strict=True)
    ]


def _tracked(row: Row, name: str, metrics: dict[int, dict[str, float]]) -> TrackedRun:
    config = {key: value for key, value in json.loads(row["config"] or "{}").items() if key not in _LEFT_OUT}
    method = json.loads(row["method_config"] or "{}")
    parameters = dict(_flat(config | {"method": {"method": row["method"]} | method, "order_seed": row["order_seed"]}))
    named = ("run", "trajectory", "model", "dataset", "label", "status", "error", "model_digest", "engine", "hardware")
    found = ("versions", "instance", "commit", "collapse_at", "collapse_reason")
    tags = {f"overedit.{key}": str(row[key]) for key in (*named, *found) if row[key] is not None}
    return TrackedRun(
        id=digest(
            [row["run"], row["trajectory"], parameters, sorted((n, sorted(at.items())) for n, at in metrics.items())]
        ),
        name=name,
        parameters=parameters,
        tags=tags,
        metrics=metrics,
        started_at=row["started_at"],
        failed=row["status"] == "failed",
    )


def _name(text: str) -> str:
    """A name that every tracker accepts: it may become a path."""
    parts = _NOT_IN_NAMES.sub("_", text).split("/")
    return "/".join(part for part in parts if part.strip(". "))


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key -> value; a list of plain values stays one value."""
    inside: Any = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        inside = enumerate(value)
    elif value is not None:
        yield _name(key), json.dumps(value) if isinstance(value, list) else value
    for name, item in inside:
        yield from _flat(item, f"{key}.{name}".lstrip("."))
