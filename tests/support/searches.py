"""Made-up trajectories whose collapse is known, and searches of it without a model."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from overedit.tasks.search.bracket import Verdict, next_count
from overedit.tasks.search.options import SearchOptions
from overedit.tasks.search.verdicts import judge

NUM_ITEMS = 840
"""Those of the pocket world's four tasks."""
BASE, SHARE = 0.9, 0.8
_Z = 1.959963984540054


def searched(options: SearchOptions, verdict: Callable[[int], Verdict]) -> dict[int, Verdict]:
    """The verdicts on the measured counts, in the order of the search."""
    found: dict[int, Verdict] = {}
    while (count := next_count(options, found)) is not None:
        assert count not in found
        found[count] = verdict(count)
    return found


class Trajectory(NamedTuple):
    """General ability that falls below 80 % of the pristine model's from `collapse` edits on."""

    collapse: int
    shape: str
    """`sudden`: from 100 % to 40 % at once; `steep` and `slow`: as a power of the edit count, through 80 %."""
    draw: random.Random

    def ability(self, count: int) -> float:
        """The true share of items answered right at an edit count."""
        if self.shape == "sudden":
            return BASE if count < self.collapse else 0.5 * BASE
        middle = self.collapse - 0.5  # where it crosses the limit, so that `collapse` is the first count below
        steepness = 2.0 if self.shape == "steep" else 0.5
        return BASE / (1 + (1 / SHARE - 1) * (count / middle) ** steepness)

    def verdict(self, count: int, z: float, looks: Sequence[int] = (NUM_ITEMS,)) -> Verdict:
        """The verdict by the warehouse's interval, on items drawn anew; on more of them where it is unsure."""
        ability = self.ability(count)
        items = [self.draw.random() < ability for _ in range(looks[-1])]
        for num_items in looks:
            value = sum(items[:num_items]) / num_items
            half = _Z * (value * (1 - value) / num_items) ** 0.5
            row = {"value": value, "low": value - half, "high": value + half, "limit": SHARE * BASE, "is_met": False}
            found = judge(row, z)
            if found.sure != "undecided":
                break
        return found
