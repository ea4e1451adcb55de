"""The objective of the search, from the answers and texts of one edited model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, harmonic_mean
from typing import Any, NamedTuple

OBJECTIVE = (
    "harmonic mean of reliability, generalization and locality (generated protocol) and the share of capability kept, "
    "at the last edit count, averaged over the seeds"
)
"""What the search maximizes, in words. An arithmetic mean would give 50 % to settings that change nothing at all; the
score of ROME (arXiv 2202.05262) and MEMIT (arXiv 2210.07229) is a harmonic mean, too."""

_MEASURES = (
    ("reliability", "edit", "score"),
    ("generalization", "rephrase", "score"),
    ("locality", "locality", "agreement"),
)
"""Measure, its probe, and the column of `outcomes` that is averaged."""


class Capability(NamedTuple):
    """The mean score of the general benchmarks."""

    value: float
    num_items: int
    chance: float
    """The mean score of guessing; 0 where it is unknown."""

    @classmethod
    def of(cls, scores: Iterable[Mapping[str, Any]]) -> Capability | None:
        """Average the headline scores of the tasks that count by themselves; None without one."""
        main = [row for row in scores if row["main"] and row["part_of"] is None]
        if not main:
            return None
        items = sum(row["num_samples"] for row in main)
        return cls(fmean(row["value"] for row in main), items, fmean(row["chance"] or 0.0 for row in main))


def outcome_means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Reliability, generalization and locality of answers under the generated protocol.

    Args:
        rows: Rows of the table `outcomes`.

    Returns:
        Measure -> mean, null if no answer can be scored; measure with `_n` -> the number of scored answers.
    """
    found: dict[str, Any] = {}
    for measure, probe, column in _MEASURES:
        of_probe = [row for row in rows if row["probe"] == probe and row["protocol"] == "generated"]
        values = [row[column] for row in of_probe if row[column] is not None]
        if of_probe:
            found |= {measure: fmean(values) if values else None, f"{measure}_n": len(values)}
    return found


def kept_share(now: float, before: Capability) -> float | None:
    """The share of capability that is left: both less the score of guessing, cut at 0 and 1.

    None where the pristine model itself only guesses.
    """
    if before.value <= before.chance:
        return None
    return min(1.0, max(0.0, (now - before.chance) / (before.value - before.chance)))


def objective(row: Mapping[str, Any]) -> float | None:
    """The harmonic mean of the measures that a row of the table `trials` has, 0 if one is 0; None if it has none."""
    names = ("reliability", "generalization", "locality", "capability_kept")
    found = [row[name] for name in names if row.get(name) is not None]
    return harmonic_mean(found) if found else None


def perplexity_ratio(nlls: Iterable[Sequence[float]], base_nll: float) -> float:
    """Perplexity over the pristine model's; infinite where it is not finite.

    Args:
        nlls: NLL of each token of each text, in nats.
        base_nll: The pristine model's mean NLL.
    """
    mean = mean_nll(nlls)
    return math.exp(mean - base_nll) if mean - base_nll < _LARGEST_EXPONENT else math.inf


def mean_nll(nlls: Iterable[Sequence[float]]) -> float:
    """The mean NLL of all tokens; infinite where one is not finite."""
    tokens = [nll for text in nlls for nll in text]
    return math.fsum(tokens) / len(tokens) if tokens and all(map(math.isfinite, tokens)) else math.inf


def cheap_score(reliability: float | None, ratio: float | None) -> float:
    """What trials are pruned by: reliability, divided by the perplexity ratio where perplexity has risen."""
    return (reliability or 0.0) / max(1.0, ratio if ratio is not None else 1.0)


_LARGEST_EXPONENT = 700.0  # exp of it is still a float
