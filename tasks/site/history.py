"""The data of the history page: the instances of each run, its headline numbers in each, and what the gates said."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import groupby
from typing import Any

from overedit.tasks.runs.run import display_names
from overedit.tasks.site.numbers import minute, parsed, short
from overedit.tasks.site.queries import SiteRows
from overedit.tasks.warehouse.tables import Row


def history_data(rows: SiteRows, reports: Mapping[str, str]) -> dict[str, Any]:
    """The runs that have instances, ready for JSON.

    Args:
        rows: The rows of the site.
        reports: Run -> address of its report, for runs that have one.
    """
    history, gates, accepted = _by_run(rows.history), _by_run(rows.gates), _by_run(rows.accepted)
    return {
        "runs": [
            _run(run, list(instances), history[run], gates[run], accepted[run]) | {"report": reports.get(run)}
            for run, instances in groupby(rows.instances, key=lambda row: row["run"])
        ]
    }


def _by_run(rows: Iterable[Row]) -> defaultdict[str, list[Row]]:
    found = defaultdict(list)
    for row in rows:
        found[row["run"]].append(row)
    return found


def _run(run: str, instances: list[Row], history: list[Row], gates: list[Row], accepted: list[Row]) -> dict[str, Any]:
    places = {row["instance"]: index for index, row in enumerate(instances)}
    trajectories = {(row["trajectory"], row["order_seed"]): row for row in history}
    ids = sorted(trajectories)
    baselines = {row["instance"] for row in history if row["is_baseline"]}
    words: dict[str, int] = {}
    return {
        "name": run,
        "lines": _lines([trajectories[id] for id in ids]),
        "instances": [
            _instance(row, places, accepted) | {"is_baseline": row["instance"] in baselines} for row in instances
        ],
        "numbers": _numbers([row for row in history if row["instance"] in places], ids, places),
        "comparisons": _comparisons([row for row in gates if row["instance"] in places], ids, places, words),
        "words": list(words),
    }


def _numbers(history: list[Row], ids: list[tuple[str, int]], places: Mapping[str, int]) -> list[dict[str, Any]]:
    """Each headline number, with a point [instance, value, low, high, n] for each instance that has it."""
    numbers: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in history:
        key = (row["trajectory"], row["order_seed"], row["edit_count"], row["measure"], row["protocol"])
        line = ids.index((row["trajectory"], row["order_seed"]))
        number = numbers.setdefault(key, _named(row) | {"line": line, "points": []})
        values = [short(row[name]) for name in ("value", "low", "high")]
        number["points"].append([places[row["instance"]], *values, row["n"]])
    return list(numbers.values())


def _comparisons(
    gates: list[Row], ids: list[tuple[str, int]], places: Mapping[str, int], words: dict[str, int]
) -> list[dict[str, Any]]:
    """Each number that was compared, of the lines that it belongs to: one, or all orders of a trajectory together."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in gates:
        key = tuple(row[name] for name in ("trajectory", "order_seed", "edit_count", "measure", "part", "protocol"))
        if key not in found:
            lines = [
                index
                for index, (trajectory, seed) in enumerate(ids)
                if trajectory == row["trajectory"] and row["order_seed"] in (seed, None)
            ]
            named = {"name": row["label"] or row["trajectory"], "part": row["part"], "lines": lines, "gates": []}
            found[key] = _named(row) | named
        found[key]["gates"].append(_gate(row, places, words))
    return list(found.values())


def _named(row: Row) -> dict[str, Any]:
    return {"count": row["edit_count"], "measure": row["measure"], "protocol": row["protocol"]}


def _lines(rows: list[Row]) -> list[dict[str, Any]]:
    named = [row | {"label": row["label"] or row["trajectory"]} for row in rows]
    names = display_names(named, show_order=len({row["order_seed"] for row in rows}) > 1)
    trajectories = list(dict.fromkeys(row["trajectory"] for row in rows))
    orders = sorted({row["order_seed"] for row in rows})
    return [
        {"name": name, "color": trajectories.index(row["trajectory"]), "order": orders.index(row["order_seed"])}
        for name, row in zip(names, rows, strict=True)
    ]


def _gate(row: Row, places: Mapping[str, int], words: dict[str, int]) -> list[Any]:
    """A comparison as a list: its instance, what it is compared with, numbers, and indices of words."""
    numbers = [short(row[name]) for name in ("before", "after", "difference", "low", "high")]
    said = [None if row[name] is None else words.setdefault(row[name], len(words)) for name in ("verdict", "reason")]
    limits = [short(row["p_adjusted"]), *said, short(row["limit"]), bool(row["failed"])]
    return [places[row["instance"]], places.get(row["baseline"]), *numbers, row["n"], *limits]


def _instance(row: Row, places: Mapping[str, int], accepted: list[Row]) -> dict[str, Any]:
    began, ended = row["started_at"], row["ended_at"]
    seconds = (ended - began).total_seconds() if isinstance(began, datetime) and isinstance(ended, datetime) else None
    plain = ("status", "error", "commit", "dirty", "hardware", "requested_by", "num_moved", "verdict", "gate")
    return {
        "id": row["instance"],
        "began": minute(began),
        "seconds": short(seconds),
        "computed": row["num_computed"],
        "shared": row["num_shared"],
        "baseline": places.get(row["baseline"]),
        "versions": parsed(row["versions"]),
        "changes": _changes(parsed(row["changes"])),
        "accepted": [
            {"at": minute(one["accepted_at"]), "by": one["accepted_by"], "note": one["note"]}
            for one in accepted
            if one["instance"] == row["instance"]
        ],
    } | {name: row[name] for name in plain}


def _changes(content: Any) -> list[list[str]]:
    """Key, value before and value after of each change against the instance before."""
    if content is None:
        return []
    changes = [
        one if isinstance(one, dict) else {"key": one} for one in (content if isinstance(content, list) else [content])
    ]
    return [[_shown(one.get(name)) for name in ("key", "before", "after")] for one in changes]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
