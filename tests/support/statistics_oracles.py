"""Statistics that tests compare the project's intervals and its detection limit with: no production code uses them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import binom, norm

from overedit.tasks.warehouse.statistics import ALPHA, POWER

_DRAWS_AT_ONCE = 2_000_000
"""Counts held at once while resampling: 16 MB."""


class Change(NamedTuple):
    """A mean difference after - before with its 95 % interval."""

    difference: float
    low: float
    high: float
    n: int
    """Pairs."""


def paired_bootstrap(
    before: ArrayLike,
    after: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    num_resamples: int = 10_000,
    seed: int,
) -> Change:
    """Bootstrap interval of the mean change of paired values: percentiles, widened for few pairs.

    Pairs are drawn with replacement, those of a group among themselves. A group's mean needs only how often each
    different change was drawn, which is multinomial: right and wrong answers of thousands of items take three numbers
    a resample. Percentiles alone are too narrow for n pairs, by sqrt((n - 1) / n) and by taking z for Student's t
    (Hesterberg 2015, "What Teachers Should Know About the Bootstrap"), so deviations are stretched by both.
    With fewer than about 50 pairs, or hardly any that changed, the interval is still too narrow (of width 0 where none
    did); that of the view `capability_change` holds there as well.

    Args:
        before: (n,) values.
        after: (n,) values of the same items, in the same order.
        groups: (n,) each item's group, e.g. its task; the difference is then the mean over groups of the group's mean
            difference, so that each task weighs the same. None: all items are one group.
        num_resamples: Resamples.
        seed: Draws them.

    Raises:
        ValueError: No pairs, sequences of different lengths, or a value that is not finite.
    """
    first, second = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if first.ndim != 1 or first.shape != second.shape or not len(first):
        raise ValueError(f"before, after: one row of pairs is wanted, not shapes {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("before, after: a value is not finite; leave its pair out")
    if groups is not None and len(groups) != len(first):
        raise ValueError(f"groups: {len(groups)} for {len(first)} pairs; one each is wanted")
    changes = second - first
    parts = [changes[indices] for indices in _indices_by_group(groups, len(changes))]
    generator = np.random.default_rng(seed)
    means = np.mean([_resampled_means(part, num_resamples, generator) for part in parts], axis=0)
    low, high = np.quantile(means, [0.025, 0.975])
    return Change(float(np.mean([part.mean() for part in parts])), float(low), float(high), len(changes))


def _indices_by_group(groups: Sequence[Hashable] | None, n: int) -> list[list[int]]:
    """The indices of each group's items; groups in the order of their first item."""
    found: dict[Hashable, list[int]] = {}
    for index, group in enumerate([None] * n if groups is None else groups):
        found.setdefault(group, []).append(index)
    return list(found.values())


def _resampled_means(
    changes: NDArray[np.float64], num_resamples: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """(num_resamples,) means of as many changes, drawn with replacement; their distance from the mean is stretched."""
    different, times = np.unique(changes, return_counts=True)
    n, step = len(changes), max(1, _DRAWS_AT_ONCE // len(different))
    sizes = [min(step, num_resamples - start) for start in range(0, num_resamples, step)]
    means = np.concatenate([generator.multinomial(n, times / n, size=size) @ different / n for size in sizes])
    return changes.mean() + _stretch(n) * (means - changes.mean())


def _stretch(n: int) -> float:
    """sqrt(n / (n - 1)) t / z at 97.5 %, t by its expansion in z (Abramowitz and Stegun 26.7.5)."""
    z, degrees = NormalDist().inv_cdf(0.975), max(1, n - 1)
    t = z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    return float(np.sqrt(n / degrees)) * t / z


def smallest_unpaired_drop(
    num_items: int, *, base_rate: float, power: float = POWER, confidence: float = 1 - ALPHA
) -> float | None:
    """The smallest true loss at which the Wilson intervals of two models do not overlap, with a given power.

    This is all that two published numbers allow: the share that each model answers right of as many items, which need
    not be the same items.

    Args:
        num_items: Items that each model answered.
        base_rate: The share that the base model answers right.
        power: The probability that the edited model's interval is below the base's.
        confidence: The level of each interval.

    Returns:
        The loss as a share of the items; None if even the loss of everything would be missed.
    """
    right = np.arange(num_items + 1)
    low, high = _wilson(right / num_items, num_items, float(norm.ppf((1 + confidence) / 2)))
    most_right = np.searchsorted(high, low, side="left") - 1  # of the edited model, for each number of the base's
    weights = binom.pmf(right, num_items, base_rate)

    def missing(drop: float) -> float:
        return float(np.sum(weights * binom.cdf(most_right, num_items, base_rate - drop))) - power

    if missing(base_rate) < 0:
        return None
    return float(brentq(missing, 0.0, base_rate, xtol=1e-6))


def _wilson(share: NDArray[np.float64], num_items: int, z: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    middle = share + z * z / (2 * num_items)
    half = z * np.sqrt(share * (1 - share) / num_items + z * z / (4 * num_items**2))
    scale = 1 + z * z / num_items
    return (middle - half) / scale, (middle + half) / scale
