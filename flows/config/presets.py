"""Values that papers' protocols ask for, filled in where the user's configuration has none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.table import Column, Table

from overedit.tasks.evaluation.paper_protocols import PRESETS, Preset
from overedit.tasks.system.untrusted import shown_value

_UNITED = ("edit_counts", "evaluation.protocols", "evaluation.probes")
_MOST = ("evaluation.max_rephrase", "evaluation.max_locality", "evaluation.max_text")


def check_known(name: object) -> str:
    """Check the name of a preset, and return it.

    Raises:
        ValueError: There is no such preset; the message suggests a similar name.
    """
    if isinstance(name, str) and name in PRESETS:
        return name
    near = difflib.get_close_matches(name[:40].lower() if isinstance(name, str) else "", PRESETS, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown preset {shown_value(name)}{hint} (known: {', '.join(PRESETS)})")


def asked_of_run(presets: Iterable[Preset], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values that presets ask for together and the user did not give, nested as in a configuration.

    Counts, protocols and probes are united, and the highest number of prompts is taken, since each preset scores its
    own part of them. On everything else the presets must agree.

    Args:
        presets: The presets.
        given: The user's configuration.

    Raises:
        ValueError: Two presets ask for different values of a key that is not given; the message names both.
    """
    asked: dict[str, Any] = {}
    asker: dict[str, str] = {}
    for preset in presets:
        for key, value in _flat(preset.asks):
            if _is_given(given, key):
                continue
            if key in asked:
                value = _together(key, asked[key], value, (asker[key], preset.name))
            asked[key], asker[key] = value, preset.name
    return _nested(asked)


def missing(presets: Iterable[Preset], given: Mapping[str, Any]) -> list[str]:
    """The values that presets need and cannot fill in, one message each."""
    return [
        f"{preset.name} needs {key}: {what}"
        for preset in presets
        for key, what in preset.needs.items()
        if not _value_at(given, key)
    ]


def presets_table() -> Table:
    """A table of the presets for the terminal."""
    paper = Column("paper", max_width=13)  # so that on 80 columns no name of a measure is cut in two
    table = Table("preset", paper, "measures", "asks for", show_lines=True, padding=0)
    for preset in PRESETS.values():
        papers = "\n".join(f"{paper.title}, arXiv {paper.arxiv}" for paper in preset.papers)
        measures = "\n".join(f"{measure.name}: {measure.definition}" for measure in preset.measures)
        asks = list(_lines(preset.asks))
        asks += [f"{key} (yours): {what}" for key, what in preset.needs.items()]
        table.add_row(preset.name, papers, measures, "\n".join(asks))
    return table


def _together(key: str, one: Any, other: Any, names: Sequence[str]) -> Any:
    if key in _UNITED:
        together = [*one, *(value for value in other if value not in one)]
        return sorted(together) if key == "edit_counts" else together
    if key in _MOST:
        return max(one, other)
    if one != other:
        raise ValueError(
            f"{names[0]} asks for {key}: {_shown(one)}, and {names[1]} for {_shown(other)}; "
            f"put them in two runs, or give {key} yourself"
        )
    return one


def _lines(nested: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """Keys and values as in a configuration file, which is narrower than dotted keys."""
    for key, value in nested.items():
        is_mapping = isinstance(value, Mapping)
        yield f"{'  ' * depth}{key}:" if is_mapping else f"{'  ' * depth}{key}: {_shown(value)}"
        if is_mapping:
            yield from _lines(value, depth + 1)


def _flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        here = found
        for step in path:
            here = here.setdefault(step, {})
        here[last] = value
    return found


def _is_given(given: Any, key: str) -> bool:
    """Whether a configuration has a dotted key; a value that is not a mapping counts as given as a whole."""
    first, _, rest = key.partition(".")
    if not isinstance(given, Mapping):
        return given is not None
    return first in given and (not rest or _is_given(given[first], rest))


def _value_at(given: Any, key: str) -> Any:
    for step in key.split("."):
        given = given[step]
    return given


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "all" if value is None else str(value) if str(value).strip(".\n") else repr(value)
