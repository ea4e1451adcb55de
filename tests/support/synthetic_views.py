"""Made-up rows of the views that a report shows only if they have rows, for every trajectory of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from overedit.tasks.report.data import RunData, Trajectory

Row = dict[str, Any]

PRESETS = {
    "ultraedit": {"efficacy": "share", "specificity": "share"},
    "memit": {"score": "share", "fluency": "bits", "consistency": "share", "text": "perplexity"},
}


def with_findings(data: RunData) -> RunData:
    """The same run with rows in every further view."""
    views: dict[str, list[Row]] = {view: [] for view in data.views}
    for trajectory in data.trajectories:
        for view, row in rows_of(data, trajectory):
            views[view].append(identity(data, trajectory) | row)
    found = {view: rows for view, rows in views.items() if rows}
    return replace(
        data, views=data.views | found | {"seed_bands": seed_bands(data), "probe_correlation": correlation()}
    )


def identity(data: RunData, trajectory: Trajectory) -> Row:
    row = data.one(trajectory, "leaderboard")
    assert row is not None
    names = ("run", "trajectory", "label", "method", "model", "dataset", "order_seed")
    return {name: row[name] for name in names}


def rows_of(data: RunData, trajectory: Trajectory) -> Iterator[tuple[str, Row]]:
    counts = [count for count in data.edit_counts if count]
    shift = 0.02 * trajectory.color
    for preset, measures in PRESETS.items():
        for measure, unit in measures.items():
            for index, count in enumerate(data.edit_counts):
                row = {"preset": preset, "measure": measure, "edit_count": count, "n": 60, "unit": unit, "reason": None}
                value = {"share": 0.9 - 0.05 * index - shift, "bits": 6.2 - 0.3 * index, "perplexity": 4.0 * 2**index}[
                    unit
                ]
                if measure == "consistency":
                    yield (
                        "preset_scores",
                        row | {"value": None, "low": None, "high": None, "reason": "no <reference> texts"},
                    )
                else:
                    yield "preset_scores", row | {"value": value, "low": value * 0.95, "high": value * 1.05}
    for name in ("capability below 80 %", "perplexity above 10 times", "half of reliability lost"):
        yield (
            "collapse_definitions",
            {"definition": name, "collapse_at": 100, "last_good": 10, "detail": "60.1 % < 80 %"},
        )
    for count in counts:
        for task in ("all", "arithmetic", "world_choice"):
            yield (
                "capability_change",
                {"edit_count": count, "task": task, "n": 200, "base_value": 0.93, "value": 0.91, "difference": -0.02}
                | {"low": -0.05, "high": 0.01, "num_lost": 7, "num_gained": 3, "p_value": 0.34, "p_adjusted": 0.0004},
            )
        for protocol in data.protocols:
            half = {"newest": 0.97, "half_life": 1234.5 * (1 + shift), "reason": None}
            yield "retention_half_life", {"protocol": protocol, "edit_count": count} | half
    for rule, verdict in (
        ("perplexity above 1.5 times", "early"),
        ("empty above 5 %", "missed"),
        ("norm above 2", "quiet"),
    ):
        at = {"warned_at": 10 if verdict == "early" else None, "collapse_at": 100, "lead": 10.0, "verdict": verdict}
        yield "early_warning", {"rule": rule, "probe": rule.split()[0], "threshold": 1.5} | at
    gated = {"gate_ratio": 1.05, "num_counts": len(counts), "num_skipped": 2, "saving": 0.5, "num_misses": 0}
    yield "capability_gating", gated | {"collapse_at": 100, "collapse_at_gated": 100}
    yield from findings(data, counts[-1])


def findings(data: RunData, count: int) -> Iterator[tuple[str, Row]]:
    for step, after in (("quantize_int8", -0.004), ("finetune:100", -0.3)):
        for measure in ("reliability", "generalization", "locality", "capability", "perplexity"):
            protocols = (None,) if measure in ("capability", "perplexity") else data.protocols
            for protocol in protocols:
                row = {"edit_count": count, "after": step, "measure": measure, "protocol": protocol, "n": 60}
                before = 4.0 if measure == "perplexity" else 0.9
                moved = {"before": before, "value": before + after, "difference": after, "kept": 1 + after / before}
                yield "durability", row | moved | {"low": after - 0.02, "high": after + 0.02}
    warned = {"kind": "unmoved", "number": 12, "total": 100, "text": "12 of 100 edits <could> not move the answer"}
    yield "warnings", {"edit_count": count} | warned


def seed_bands(data: RunData) -> list[Row]:
    if len({trajectory.order_seed for trajectory in data.trajectories}) == 1:
        return []
    rows = []
    for trajectory in data.trajectories:
        if trajectory.order_seed == min(one.order_seed for one in data.trajectories):
            for measure, protocol in (*(("reliability", p) for p in data.protocols), ("capability", None)):
                for index, count in enumerate(data.edit_counts):
                    mean = 0.9 - 0.1 * index
                    band = {"num_orders": 2, "mean": mean, "low": mean - 0.2, "high": mean + 0.2}
                    known = {name: value for name, value in identity(data, trajectory).items() if name != "order_seed"}
                    ends = {"lowest": mean - 0.05, "highest": mean + 0.04}
                    rows.append(known | {"edit_count": count, "measure": measure, "protocol": protocol} | band | ends)
    return rows


def correlation() -> list[Row]:
    known = {"run": "synthetic", "model": "pocket-4m", "dataset": "pocket_world", "against": "capability_share"}
    return [
        known
        | {"method": method, "probe": probe, "num_points": 12, "num_trajectories": 3, "pearson": -0.6, "reason": None}
        | {"spearman": -0.87, "low": -0.96, "high": -0.6}
        for method in ("all", "ft_l")
        for probe in ("perplexity_ratio", "empty")
    ]
