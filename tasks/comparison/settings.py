"""Which settings of two runs are not the same."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from overedit.tasks.report.data import Row

_NOT_SETTINGS = ("name", "home", "methods")
"""Of the configuration: what differs always, and what each method's own configuration says better."""


class Setting(NamedTuple):
    """A setting that is not the same, as it is written in either; None where there is none."""

    key: str
    first: str | None
    second: str | None


def differing_settings(first: dict[str, Row], second: dict[str, Row]) -> list[Setting]:
    """The settings that differ; of a trajectory that one run has alone, that it is there.

    Args:
        first: What a trajectory is called -> its row of the table `runs`.
        second: The other run's.
    """
    sides = [dict(_settings(rows, common=first.keys() & second.keys())) for rows in (first, second)]
    keys = dict.fromkeys([*sides[0], *sides[1]])
    return [Setting(key, *of) for key in keys if (of := [side.get(key) for side in sides])[0] != of[1]]


def _settings(rows: dict[str, Row], *, common: Collection[str]) -> Iterator[tuple[str, str]]:
    for row in list(rows.values())[:1]:
        config = {key: value for key, value in _json(row["config"]).items() if key not in _NOT_SETTINGS}
        yield from _flat(config)
        yield from _flat({"versions": _json(row["versions"])})
        yield from ((key, str(row[key])) for key in ("model_digest", "engine", "hardware") if row[key] is not None)
    for name, row in rows.items():
        if name in common:
            yield from _flat({name: _json(row["method_config"])})
        else:
            yield name, "there"


def _json(text: str | None) -> dict[str, Any]:
    content = json.loads(text or "{}")
    return content if isinstance(content, dict) else {}


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
