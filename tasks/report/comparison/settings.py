"""The settings that differ between two runs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from overedit.tasks.warehouse.tables import Row

_NOT_COMPARED = ("name", "home", "methods")
"""Keys of the configuration that always differ, or that each method's own configuration states in full."""


class Setting(NamedTuple):
    """A setting that differs, as each run has it in writing; None where a run does not have it."""

    key: str
    first: str | None
    second: str | None


def differing_settings(first: dict[str, Row], second: dict[str, Row]) -> list[Setting]:
    """The settings that differ; a trajectory that only one run has counts as a setting, `there`.

    Args:
        first: Display name of a trajectory -> its row of the table `runs`.
        second: The same for the other run.
    """
    common = first.keys() & second.keys()
    one, other = dict(_settings(first, common)), dict(_settings(second, common))
    settings = (Setting(key, one.get(key), other.get(key)) for key in dict.fromkeys([*one, *other]))
    return [setting for setting in settings if setting.first != setting.second]


def _settings(rows: dict[str, Row], common: Collection[str]) -> Iterator[tuple[str, str]]:
    """(key, value) of a run: its configuration, once, and each trajectory's method."""
    for row in list(rows.values())[:1]:
        config = {key: value for key, value in _parsed(row["config"]).items() if key not in _NOT_COMPARED}
        yield from _flat(config)
        yield from _flat({"versions": _parsed(row["versions"])})
        yield from ((key, str(row[key])) for key in ("model_digest", "engine", "hardware") if row[key] is not None)
    for name, row in rows.items():
        if name in common:
            yield from _flat({name: _parsed(row["method_config"])})
        else:
            yield name, "there"


def _parsed(text: str | None) -> dict[str, Any]:
    content = json.loads(text or "{}")
    return content if isinstance(content, dict) else {}


def _flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested mappings under dotted keys; a text as it is, any other value as JSON."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)
