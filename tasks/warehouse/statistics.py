"""Statistics that are computed rather than queried; intervals of shares and of paired items stand in `sql/macros/`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import binom, norm

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
    parts = [changes[places] for places in _places(groups, len(changes))]
    generator = np.random.default_rng(seed)
    means = np.mean([_resampled_means(part, num_resamples, generator) for part in parts], axis=0)
    low, high = np.quantile(means, [0.025, 0.975])
    return Change(float(np.mean([part.mean() for part in parts])), float(low), float(high), len(changes))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979), in the order given.

    An adjusted value below 0.05 rejects its hypothesis with at most a 5 % chance of rejecting any true one of them,
    however they depend on one another.
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def _places(groups: Sequence[Hashable] | None, n: int) -> list[list[int]]:
    """The items of each group, groups in the order in which they are met."""
    found: dict[Hashable, list[int]] = {}
    for place, group in enumerate([None] * n if groups is None else groups):
        found.setdefault(group, []).append(place)
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


CHURN = 0.05
"""The share of items that is lost by chance alone, and as large a share gained."""


POWER = 0.8


ALPHA = 0.05


_NEVER_FEWER = 1e-12  # numbers of changed items that are less likely than this are left out of the sum


def mcnemar_power(num_items: int, drop: float, *, churn: float = CHURN, alpha: float = ALPHA) -> float:
    """The chance that the exact McNemar test calls a true loss one.

    Each item is lost with probability `churn + drop` and gained with probability `churn`, by itself.

    Args:
        num_items: Items asked of both models.
        drop: The true loss, a share of the items.
        churn: The share that is lost by chance alone, and the share gained.
        alpha: The test's two-sided level.
    """
    changing = 2 * churn + drop
    if changing <= 0:
        return 0.0
    ends = binom.ppf([_NEVER_FEWER, 1 - _NEVER_FEWER], num_items, changing)
    changed = np.arange(max(1, int(ends[0])), int(ends[1]) + 1)
    found = binom.sf(_most_lost(changed, alpha), changed, (churn + drop) / changing)
    return float(np.sum(binom.pmf(changed, num_items, changing) * found))


def smallest_detectable_drop(
    num_items: int,
    *,
    base_rate: float | None = None,
    churn: float = CHURN,
    power: float = POWER,
    alpha: float = ALPHA,
) -> float | None:
    """The smallest true loss that the exact McNemar test finds with the power asked for.

    Args:
        num_items: Items asked of both models.
        base_rate: The share that the base model has right: no more can be lost. None where it is not known.
        churn: The share that is lost by chance alone, and the share gained.
        power: The chance of finding the loss.
        alpha: The test's two-sided level.

    Returns:
        The loss as a share of the items; None where not even the largest possible loss would be found.
    """
    most = min(1 - 2 * churn, 1.0 if base_rate is None else base_rate - churn)

    def missing(drop: float) -> float:
        return mcnemar_power(num_items, drop, churn=churn, alpha=alpha) - power

    if most <= 0 or missing(most) < 0:
        return None
    return float(brentq(missing, 0.0, most, xtol=1e-6))


def smallest_unpaired_drop(
    num_items: int, *, base_rate: float, power: float = POWER, confidence: float = 1 - ALPHA
) -> float | None:
    """The smallest true loss at which two Wilson intervals do not overlap, with the power asked for.

    This is what two published numbers allow: of each model the share right of as many, but not the same, items.

    Args:
        num_items: Items asked of each model.
        base_rate: The share that the base model has right.
        power: The chance that the edited model's interval lies below the base's.
        confidence: Of each interval.

    Returns:
        The loss as a share of the items; None where not even the loss of everything would be found.
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


def _most_lost(changed: npt.NDArray[np.int64], alpha: float) -> npt.NDArray[np.float64]:
    """For each number of changed items the most lost ones that the test does not call a loss."""
    return np.asarray(binom.isf(alpha / 2, changed, 0.5))


def _wilson(
    share: npt.NDArray[np.float64], num_items: int, z: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    middle = share + z * z / (2 * num_items)
    half = z * np.sqrt(share * (1 - share) / num_items + z * z / (4 * num_items**2))
    scale = 1 + z * z / num_items
    return (middle - half) / scale, (middle + half) / scale
