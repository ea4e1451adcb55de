"""Brackets the collapse: which edit count is measured next, and what the measured ones say.

A measured count is good, bad, or undecided: the interval of its number holds the limit. As long as none is bad, counts
grow. Then the gaps at both edges of the bracket are halved, on the logarithmic scale: between the last good count and
the next one above, and between the first bad one and the next one below. Without undecided counts that is bisection.
The next count depends on the verdicts alone, so a search that was stopped takes the same way again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

from overedit.tasks.search.options import SearchOptions

Likely: TypeAlias = Literal["good", "bad"]
Sure: TypeAlias = Literal["good", "bad", "undecided"]


class Verdict(NamedTuple):
    """What one measured edit count says."""

    sure: Sure
    """With the interval's probability of error."""
    likely: Likely
    """By the number itself."""


class Bracket(NamedTuple):
    """The answer of a search so far."""

    last_good: int
    """The last edit count below `collapse_at` that is surely good; 0, the pristine model, is good by definition."""
    collapse_at: int | None
    """The first that is surely bad; None if none is."""
    takes: int
    """The last edit count before the model has likely collapsed: the number that the search answers with."""
    inside: tuple[int, ...]
    """Measured counts between the two, all undecided."""


def bracket(verdicts: Mapping[int, Verdict]) -> Bracket:
    """The bracket that measured edit counts leave."""
    bad = min((count for count, verdict in verdicts.items() if verdict.sure == "bad"), default=None)
    below = sorted(count for count in verdicts if bad is None or count < bad)
    good = max((count for count in below if verdicts[count].sure == "good"), default=0)
    inside = tuple(count for count in below if count > good)
    takes = good
    for count in inside:
        if verdicts[count].likely == "bad":
            break
        takes = count
    return Bracket(good, bad, takes, inside)


def next_count(options: SearchOptions, verdicts: Mapping[int, Verdict]) -> int | None:
    """The edit count to measure next; None when the bracket is as narrow as asked, or as it can be."""
    good, bad, _, inside = bracket(verdicts)
    reached = max(verdicts, default=0)
    if bad is None and reached < options.growing()[-1]:
        return next(count for count in options.growing() if count > reached)
    points = [good, *inside] + ([] if bad is None else [bad])
    edges = [*pairwise(points)][:1] + ([] if bad is None else [*pairwise(points)][-1:])
    for low, high in edges:
        if high - low > max(1, options.precision * low):
            return min(max(round(math.sqrt(max(low, 1) * high)), low + 1), high - 1)
    return None
