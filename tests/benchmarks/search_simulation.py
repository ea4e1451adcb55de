"""Searches for the collapse on made-up trajectories: coverage of the bracket, and counts measured against other ways.

python tests/benchmarks/search_simulation.py
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from statistics import median

from overedit.tasks.search.bracket import Verdict, bracket
from overedit.tasks.search.options import SearchOptions
from tests.support.searches import Trajectory, searched

NUM_SEARCHES = 1000
OPTIONS = SearchOptions.model_validate({"search": "collapse", "stop": 1000})
SHAPES = ("exact", "sudden", "steep", "slow")


def simulated(shape: str) -> list[str]:
    """A row of the table: 1,000 searches with the collapse at a random place between 3 and 800 edits."""
    draw = random.Random(shape)
    held = narrow = counts = edits = again_counts = again_edits = 0
    widths = []
    for _ in range(NUM_SEARCHES):
        collapse = round(10 ** draw.uniform(0.5, 2.9))
        trajectory = Trajectory(collapse, "sudden" if shape == "exact" else shape, draw)
        verdict = (
            _exact(collapse) if shape == "exact" else lambda count, one=trajectory: one.verdict(count, OPTIONS.z())
        )
        found = searched(OPTIONS, verdict)
        answer = bracket(found)
        upper = math.inf if answer.collapse_at is None else answer.collapse_at
        held += answer.last_good < collapse <= upper
        narrow += upper - answer.last_good <= max(1, OPTIONS.precision * answer.last_good)
        counts, edits = counts + len(found), edits + _edits_with_reuse(found)
        widths.append(upper / max(answer.last_good, 1))
        halved = _bisection(collapse)
        again_counts, again_edits = again_counts + len(halved), again_edits + sum(halved)
    shares = [f"{held / NUM_SEARCHES:.1%}", f"{narrow / NUM_SEARCHES:.1%}", f"{median(widths):.2f}"]
    means = [counts / NUM_SEARCHES, len(_grid()), again_counts / NUM_SEARCHES]
    edited = [edits / NUM_SEARCHES, OPTIONS.stop or 0, again_edits / NUM_SEARCHES]
    return [shape, *shares, *(f"{each:.1f}" for each in means), *(f"{each:,.0f}" for each in edited)]


def _exact(collapse: int) -> Callable[[int], Verdict]:
    return lambda count: Verdict("bad", "bad") if count >= collapse else Verdict("good", "good")


def _edits_with_reuse(found: dict[int, Verdict], turn_size: int = 100) -> int:
    """Edits that a search applies: each count continues from the newest turn of the main line below it."""
    total, states = 0, {0}
    for count in found:
        start = max(state for state in states if state <= count)
        total += count - start
        states.add(count // turn_size * turn_size)
    return total


def _grid() -> list[int]:
    """Counts of the same precision, each the one before and a tenth."""
    found = [1]
    while found[-1] < (OPTIONS.stop or 0):
        found.append(min(max(found[-1] + 1, math.floor(found[-1] * (1 + OPTIONS.precision))), OPTIONS.stop or 0))
    return found


def _bisection(collapse: int) -> list[int]:
    """The counts of a bisection between 1 and `stop`, each edited from the start."""
    low, high, found = 0, OPTIONS.stop or 0, [OPTIONS.stop or 0]
    while high - low > max(1, OPTIONS.precision * low):
        middle = min(max(round(math.sqrt(max(low, 1) * high)), low + 1), high - 1)
        found.append(middle)
        low, high = (middle, high) if middle < collapse else (low, middle)
    return found


def table() -> str:
    """The table of docs/collapse.md."""
    heads = ["fall of ability", "bracket holds it", "as narrow as asked", "median end / start"]
    heads += [f"{what}: {how}" for what in ("counts", "edits") for how in ("search", "every 10 %", "bisection")]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(simulated(shape))} |" for shape in SHAPES)])


if __name__ == "__main__":
    print(table())
