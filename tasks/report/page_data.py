"""The data of the page's heat map, scatter plot and cases, which its scripts draw."""

from __future__ import annotations

from typing import Any

from overedit.tasks.report.data import Row, RunData, is_of

_LONGEST = 160
_PROBES = {"edit": "The edit", "rephrase": "The same in other words", "locality": "Another fact"}


def heat_data(data: RunData) -> dict[str, Any]:
    """Retention by age and edit count; a cell is [index of the age, index of the count, value, low, high, n]."""
    counts = sorted({row["edit_count"] for row in data.views["retention_by_age"]})
    cells = {
        protocol: [
            [
                [data.ages.index(row["age"]), counts.index(row["edit_count"]), *_numbers(row)]
                for row in data.of(trajectory, "retention_by_age", protocol=protocol)
                if row["value"] is not None
            ]
            for trajectory in data.trajectories
        ]
        for protocol in data.protocols
    }
    return {"counts": counts, "ages": list(data.ages), "cells": cells}


def scatter_data(data: RunData) -> list[list[dict[str, Any]]]:
    """The checkpoints of each trajectory in order: perplexity over the pristine model's (x) and capability (y)."""
    return [
        [
            {"count": row["edit_count"], "x": row["ratio"], "y": row["value"], "low": row["low"], "high": row["high"]}
            for row in data.checkpoints
            if is_of(row, trajectory) and row["ratio"] is not None
        ]
        for trajectory in data.trajectories
    ]


def case_data(data: RunData) -> list[dict[str, Any]]:
    """A few cases with their prompts, and each checkpoint's answer: [text, mark] by trajectory and edit count."""
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
        answer = [cut(row["output"]), mark(row)]
        if row["method"] == "none":
            probe["before"] = answer
            continue
        index = next((i for i, trajectory in enumerate(data.trajectories) if is_of(row, trajectory)), None)
        if index is not None:
            probe["after"].setdefault(index, {})[row["edit_count"]] = answer
            case["edited"][index] = row["position"]
    return [
        case | {"probes": [case["probes"][name] for name in _PROBES if name in case["probes"]]}
        for case in cases.values()
    ]


def mark(row: Row) -> bool | None:
    """Whether an answer is right: the new fact, or for locality the answer before editing; None if it has no score."""
    value = row["agreement"] if row["probe"] == "locality" else row["score"]
    return None if value is None else value == 1


def cut(text: str | None) -> str:
    """A text without blanks at its ends, cut to 160 characters."""
    shown = (text or "").strip()
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def _numbers(row: Row) -> list[float | int | None]:
    return [None if (value := row[name]) is None else round(value, 6) for name in ("value", "low", "high", "n")]
