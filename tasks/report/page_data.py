"""What the page shows otherwise than by curves, as data: the heat map, the scatter, and the texts of a few cases."""

from __future__ import annotations

from typing import Any

from overedit.tasks.report.data import Row, RunData, is_of

_LONGEST = 160
_PROBES = {"edit": "The edit", "rephrase": "The same in other words", "locality": "Another fact"}


def heat_data(data: RunData) -> dict[str, Any]:
    """Retention by age and edit count: a cell is [place of the age, place of the count, value, low, high, n]."""
    counts = sorted({row["edit_count"] for row in data.views["retention_by_age"]})
    cells = {
        protocol: [
            [
                [data.ages.index(row["age"]), counts.index(row["edit_count"]), *_numbers(row)]
                for row in data.of(line, "retention_by_age", protocol=protocol)
                if row["value"] is not None
            ]
            for line in data.lines
        ]
        for protocol in data.protocols
    }
    return {"counts": counts, "ages": list(data.ages), "cells": cells}


def scatter_data(data: RunData) -> list[list[dict[str, Any]]]:
    """Per line its checkpoints in order: perplexity over the pristine model's (x) and capability (y)."""
    return [
        [
            {"count": row["edit_count"], "x": row["ratio"], "y": row["value"], "low": row["low"], "high": row["high"]}
            for row in data.checkpoints
            if is_of(row, line) and row["ratio"] is not None
        ]
        for line in data.lines
    ]


def case_data(data: RunData) -> list[dict[str, Any]]:
    """The chosen cases, each with its prompts, and what each checkpoint said: [text, mark] by line and edit count."""
    cases: dict[str, dict[str, Any]] = {}
    for row in data.cases:
        case = cases.setdefault(row["case_id"], {"number": row["edit_number"], "edited": {}, "probes": {}})
        probe = case["probes"].setdefault(
            row["probe"],
            {
                "title": _PROBES[row["probe"]],
                "prompt": cut(row["prompt"]),
                "target": cut(row["target"]),
                "before": None,
                "after": {},
            },
        )
        said = [cut(row["output"]), mark(row)]
        if row["method"] == "none":
            probe["before"] = said
            continue
        index = next((i for i, line in enumerate(data.lines) if is_of(row, line)), None)
        if index is not None:
            probe["after"].setdefault(index, {})[row["edit_count"]] = said
            case["edited"][index] = row["position"]
    return [
        case | {"probes": [case["probes"][name] for name in _PROBES if name in case["probes"]]}
        for case in cases.values()
    ]


def mark(row: Row) -> bool | None:
    """Whether an answer is right: the new fact, or for another fact the answer before editing; None where unknown."""
    value = row["agreement"] if row["probe"] == "locality" else row["score"]
    return None if value is None else value == 1


def cut(text: str | None) -> str:
    """A text short enough for a page."""
    shown = (text or "").strip()
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def _numbers(row: Row) -> list[float | int | None]:
    return [None if (value := row[name]) is None else round(value, 6) for name in ("value", "low", "high", "n")]
