"""Is a difference between two lists of answers to the same questions more than chance? Intervals and p values."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z95 = 1.959963984540054


def paired_interval(changes: float, squares: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a mean change of n pairs, each change in [-1, 1].

    Agresti and Min's for matched proportions ("Simple improved confidence intervals for comparing matched
    proportions", Statistics in Medicine 2005): Wald's after adding half a pair of each kind, so two pairs, of which one
    half gained and one half lost. It is never of width 0, and for fractional scores an approximation.

    Args:
        changes: Their sum.
        squares: The sum of their squares.
        n: Pairs.
    """
    mean = changes / (n + 2)
    half = Z95 * math.sqrt(max(0.0, (squares + 1) / (n + 2) - mean**2) / (n + 2))
    return max(-1.0, mean - half), min(1.0, mean + half)


def sign_test(num_lost: int, num_gained: int) -> float:
    """The exact two-sided p of so many losses and gains, were either as likely; of right and wrong it is McNemar's."""
    n, fewer = num_lost + num_gained, min(num_lost, num_gained)
    tail = sum(math.exp(_log_choose(n, k) - n * math.log(2)) for k in range(fewer + 1))
    return min(1.0, 2 * tail)


def two_sided(difference: float, half_width: float) -> float | None:
    """The p of a normal difference with this half of a 95 % interval; None where the width is 0."""
    return math.erfc(abs(difference) / (half_width / Z95) / math.sqrt(2)) if half_width > 0 else None


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values adjusted for being several (Holm 1979), in the order given."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
