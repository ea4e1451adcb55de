"""Statistics that are computed in Python; the intervals of shares and of paired items are macros in `sql/macros/`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHURN = 0.05
"""The share of items that is lost by chance alone, and the share that is gained by chance."""
POWER = 0.8
"""The probability with which a loss is to be found."""
ALPHA = 0.05
"""The two-sided level of the tests."""

_NEGLIGIBLE = 1e-12
"""Numbers of changed items in a tail of this probability are left out of the sum."""


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values by Holm's step-down method (1979).

    An adjusted value below 0.05 rejects its hypothesis. The chance of rejecting any true hypothesis is then at most
    5 %, however the hypotheses depend on one another.

    Args:
        p_values: (n,) p values, in any order.

    Returns:
        (n,) adjusted p values in the same order, each in [0, 1].
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def mcnemar_power(num_items: int, drop: float, *, churn: float = CHURN, alpha: float = ALPHA) -> float:
    """The probability that the exact McNemar test finds a true loss.

    Each item is lost with probability `churn + drop` and gained with probability `churn`, independently of the others.

    Args:
        num_items: Items that both models answered.
        drop: The true loss, as a share of the items.
        churn: The share that is lost by chance alone, and the share that is gained by chance.
        alpha: The test's two-sided level.
    """
    import numpy as np  # with SciPy it takes half a second to import
    from scipy.stats import binom

    changing = 2 * churn + drop
    if changing <= 0:
        return 0.0
    ends = binom.ppf([_NEGLIGIBLE, 1 - _NEGLIGIBLE], num_items, changing)
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
    """The smallest true loss that the exact McNemar test finds with a given power.

    Args:
        num_items: Items that both models answered.
        base_rate: The share that the base model answers right, which is the most that can be lost; None if unknown.
        churn: The share that is lost by chance alone, and the share that is gained by chance.
        power: The probability of finding the loss.
        alpha: The test's two-sided level.

    Returns:
        The loss as a share of the items; None if even the largest possible loss would be missed.
    """
    from scipy.optimize import brentq

    most = min(1 - 2 * churn, 1.0 if base_rate is None else base_rate - churn)

    def missing_power(drop: float) -> float:
        return mcnemar_power(num_items, drop, churn=churn, alpha=alpha) - power

    if most <= 0 or missing_power(most) < 0:
        return None
    return float(brentq(missing_power, 0.0, most, xtol=1e-6))


def _most_lost(changed: NDArray[np.int64], alpha: float) -> NDArray[np.float64]:
    """For each number of changed items, the most lost items with which the test finds no loss."""
    from scipy.stats import binom

    lost: NDArray[np.float64] = binom.isf(alpha / 2, changed, 0.5)
    return lost
