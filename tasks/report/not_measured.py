"""Sentences on what a run did not measure, from its own rows."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from overedit.tasks.report.data import RunData
from overedit.tasks.warehouse.statistics import ALPHA, CHURN, POWER, smallest_detectable_drop
from overedit.tasks.warehouse.vocabulary import PROTOCOLS, RIGHT_OR_WRONG

_MEASURES = ("reliability", "generalization", "locality", "portability")


def gaps(data: RunData) -> list[str]:
    """Sentences on everything that was not measured although a reader might expect it."""
    return [
        *_failed(data),
        *_not_asked(data),
        *_unscored(data),
        *_sampled(data),
        *_without_capability(data),
        *_too_small_to_see(data),
        *_configured(data),
        *_orders(data),
        *_other_gaps(data),
    ]


def _failed(data: RunData) -> list[str]:
    return [
        f"{trajectory.name} failed after {row['measured_up_to'] or 0:,} measured edits: {row['error']}"
        for trajectory in data.trajectories
        if (row := data.one(trajectory, "collapse_point")) and row["status"] == "failed"
    ]


def _not_asked(data: RunData) -> list[str]:
    sentences = [f"Nothing was asked under the {name} protocol." for name in PROTOCOLS if name not in data.protocols]
    asked = {row["measure"] for row in data.views["reliability_by_edit_count"]}
    return sentences + [f"{name.capitalize()}: no prompt was asked." for name in _MEASURES if name not in asked]


def _unscored(data: RunData) -> list[str]:
    numbers: Counter[tuple[str, str, str]] = Counter()
    for trajectory in data.trajectories:
        for row in data.of(trajectory, "reliability_by_edit_count"):
            if row["unscored"] and row["measure"] in _MEASURES and row["edit_count"] > 0:
                numbers[row["measure"], row["protocol"], row["reason"] or "no reason was stored"] += row["unscored"]
    return [
        f"{measure.capitalize()}, {protocol.replace('_', '-')}: {number:,} answers have no score ({reason})."
        for (measure, protocol, reason), number in sorted(numbers.items())
    ]


def _sampled(data: RunData) -> list[str]:
    sampled = set()
    for trajectory in data.trajectories:
        for row in data.of(trajectory, "reliability_by_edit_count", measure="reliability"):
            asked = (row["n"] or 0) + row["unscored"]
            if row["edit_count"] > asked:
                sampled.add((row["edit_count"], asked))
    return [f"At {count:,} edits only {asked:,} of the edited cases were asked." for count, asked in sorted(sampled)]


def _without_capability(data: RunData) -> list[str]:
    sentences = []
    for trajectory in data.trajectories:
        have = {row["edit_count"] for row in data.of(trajectory, "capability_by_edit_count")}
        whole = {row["edit_count"] for row in data.of(trajectory, "reliability_by_edit_count")}
        missing = [f"{count:,}" for count in sorted(whole - have)]
        if missing:
            sentences.append(f"{trajectory.name}: no general benchmark was run at {', '.join(missing)} edits.")
    reasons = {
        f"Capability at {row['edit_count']:,} edits of {trajectory.name} has no mean: {row['reason']}."
        for trajectory in data.trajectories
        for row in data.of(trajectory, "capability_by_edit_count", task="mean")
        if row["value"] is None
    }
    return sentences + sorted(reasons)


def _too_small_to_see(data: RunData) -> list[str]:
    """The smallest loss of general ability that the run's benchmark items can show."""
    asked = {
        row["task"]: row["n"]
        for row in data.views["capability_by_edit_count"]
        if row["edit_count"] == 0 and row["part_of"] is None and row["metric"].partition(",")[0] in RIGHT_OR_WRONG
    }
    total = sum(asked.values())
    drop = smallest_detectable_drop(total) if total else None
    if drop is None:
        return []
    return [
        f"A loss of general ability of less than {100 * drop:.1f} points of all {total:,} items had a chance of less "
        f"than {POWER:.0%} of being seen (paired exact McNemar test at {ALPHA:.0%}, if {CHURN:.0%} of the items are "
        "lost by chance, and as many gained)."
    ]


def _configured(data: RunData) -> list[str]:
    """What the stored configuration leaves out."""
    sentences = []
    capability, perplexity = _options(data, "capability"), _options(data, "perplexity")
    if capability.get("limit"):
        sentences.append(f"Of each general benchmark only the first {capability['limit']:,} items were asked.")
    if capability.get("when") == "gated":
        sentences.append(
            "The general benchmarks were skipped where perplexity stayed at its level (in steps of "
            f"{capability['gate_ratio']:g} times the pristine model's): a loss that it does not show would be missed."
        )
    if perplexity.get("limit"):
        sentences.append(f"Perplexity is that of the first {perplexity['limit']:,} texts of the corpus.")
    return sentences


def _options(data: RunData, name: str) -> dict[str, Any]:
    config = json.loads(data.runs[0]["config"] or "{}") if data.runs else {}
    return config.get(name) or {}


def _orders(data: RunData) -> list[str]:
    orders = {trajectory.order_seed for trajectory in data.trajectories}
    if len(orders) == 1:
        return [
            "Only one order of the edits was tried: the intervals do not cover how much another order would change."
        ]
    few = {
        name
        for name, times in Counter(trajectory.id for trajectory in data.trajectories).items()
        if times < len(orders)
    }
    missing = [f"{name} was not run in each of the {len(orders)} orders." for name in sorted(few)]
    return [f"{len(orders)} orders of the edits were tried: their range says little about the next order.", *missing]


def _other_gaps(data: RunData) -> list[str]:
    sentences = []
    if not data.views["perplexity_by_edit_count"]:
        sentences.append("Perplexity was not measured.")
    if any(row["peak_memory_bytes"] is None for row in data.views["cost_per_edit"]):
        sentences.append("The peak memory of some editing steps was not measured.")
    sentences.append("Between two measured edit counts nothing is known: the lines only connect what was measured.")
    return sentences
