"""How small a loss of general ability a run can see, from the numbers of its items alone: said before it starts.

Base and edited model are asked the same items. What counts are those that change: `lost` were right before and are
wrong now, `gained` the other way round. McNemar's test asks whether the lost ones are more than half of them (Q.
McNemar, Note on the sampling error of the difference between correlated proportions or percentages, Psychometrika 12,
1947); its exact form takes the binomial distribution of the lost among the changed. The power is exact too: summed over
how many items change, and how many of those are lost (S. W. Duffy, Asymptotic and exact power for the McNemar test,
Biometrics 40, 1984).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import binom, norm

from overedit.tasks.capability import is_right_or_wrong
from overedit.tasks.capability_options import CapabilityOptions
from overedit.tasks.capability_tasks import load_tasks
from overedit.tasks.measure import MeasureOptions, Subject, awaits_capability

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


def before_the_run(bases: Iterable[Subject], options: MeasureOptions) -> list[str]:
    """Find every benchmark before anything long starts, and say what the run will be able to see.

    Args:
        bases: The pristine model, at each ordering of the requests. Where all its benchmarks are stored already,
            nothing is loaded and nothing said.
        options: What is measured.

    Raises:
        ValueError: There is no such task, or its local items are not as it needs them.
        OSError: A task's items can be neither found nor downloaded.
    """
    if not any(awaits_capability(base, options) for base in bases):
        return []
    loaded = load_tasks(options.capability)
    sizes = loaded.num_items(options.capability.most_items, of=is_right_or_wrong)
    return detection_lines(options.capability, sizes)


def detection_lines(options: CapabilityOptions, sizes: Mapping[str, int]) -> list[str]:
    """What the run will be able to see, in a sentence or two; none where no general benchmark is run.

    Args:
        options: Which benchmarks.
        sizes: The items asked of each task or group that counts by itself, where an item is right or wrong.
    """
    if not sizes or options.when == "never":
        return []
    total = sum(sizes.values())
    how = (
        f"{POWER:.0%} power (paired exact McNemar test at {ALPHA:.0%}; {CHURN:.0%} of the items lost by chance, and as "
        "many gained)"
    )
    if len(sizes) == 1:
        return [f"capability: {next(iter(sizes))}, {total:,} items: {_seen(total)} with {how}"]
    fewest, most = (pick(sizes.items(), key=lambda item: item[1]) for pick in (min, max))
    lines = [f"capability: {len(sizes)} tasks, {total:,} items: of all items together {_seen(total)} with {how}"]
    if fewest[1] == most[1]:
        return [*lines, f"capability: of one task ({most[1]:,} items) {_seen(most[1])}"]
    ends = [f"of {name} ({size:,} items) {_seen(size)}" for name, size in (fewest, most)]
    return [*lines, f"capability: {'; '.join(ends)}"]


def _seen(num_items: int) -> str:
    drop = smallest_detectable_drop(num_items)
    return "no drop would be seen" if drop is None else f"a drop of {100 * drop:.1f} points would be seen"


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
