"""How two runs' numbers differ: paired where both asked the same questions, otherwise by each run's own intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

from overedit.tasks.comparison import queries
from overedit.tasks.report.data import Row
from overedit.tasks.warehouse.statistics import holm

Ask = Callable[..., list[Row]]

MEASURES = {
    "edit": "reliability",
    "rephrase": "generalization",
    "persona": "persona",
    "locality": "locality",
    "portability": "portability",
}
"""Probe -> what its score is called."""
_KINDS = ("outcome", "capability", "perplexity")
_PAIRED = ("first", "second", "difference", "low", "high", "n", "p_value")
_Z95 = NormalDist().inv_cdf(0.975)


class Point(NamedTuple):
    """What is measured in both runs."""

    name: str
    """The trajectory's."""
    edit_count: int
    kind: str
    """outcome | capability | perplexity"""
    measure: str
    """Of outcomes one of MEASURES; of capability a task, or `mean`; of perplexity a corpus."""


class Difference(NamedTuple):
    """One measure at one edit count, in both runs."""

    point: Point
    first: float
    """Of a paired difference, over the pairs alone."""
    second: float
    difference: float | None = None
    """second - first; of perplexity second / first. None where one of them is not finite."""
    low: float | None = None
    high: float | None = None
    """Its 95 % interval."""
    n: int | None = None
    """Pairs; None where it is not paired."""
    p_value: float | None = None
    p_adjusted: float | None = None
    """Adjusted by Holm's method over all differences of the comparison."""


def differences(ask: Ask, protocol: str) -> list[Difference]:
    """Every measure that both runs have, in the order of names and edit counts.

    Args:
        ask: Answers a query, with its values, in which `names` is defined.
        protocol: How answers are scored.
    """
    points: dict[Point, dict[int, Row]] = {}
    for row in ask(queries.POINTS, protocol=protocol):
        if row["value"] is not None:
            point = Point(row["name"], row["edit_count"], row["kind"], row["measure"])
            points.setdefault(point, {})[row["side"]] = row
    pairs = {
        Point(row["name"], row["edit_count"], kind, MEASURES.get(row["measure"]) or row["measure"]): row
        for kind, rows in zip(
            _KINDS, (ask(queries.OUTCOMES, protocol=protocol), ask(queries.ITEMS), ask(queries.TEXTS)), strict=True
        )
        for row in rows
    }
    found: dict[Point, Difference] = {}
    for point in sorted((point for point, sides in points.items() if len(sides) == 2), key=_place):
        sides, pair = points[point], pairs.get(point)
        if pair is not None and point.measure != "mean" and 2 * pair["n"] >= min(sides[1]["n"], sides[2]["n"]):
            found[point] = Difference(point, **{name: pair[name] for name in _PAIRED})
        else:
            found[point] = _unpaired(point, sides[1], sides[2])
    means = [point for point in found if point[2:] == ("capability", "mean")]
    found |= {point: _mean(point, found, pairs) or found[point] for point in means}
    return _adjusted(list(found.values()))


def _place(point: Point) -> tuple[Any, ...]:
    order = [*MEASURES.values(), "mean"]
    rank = order.index(point.measure) if point.measure in order else len(order)
    return point.name, point.edit_count, _KINDS.index(point.kind), rank, point.measure


def _unpaired(point: Point, first: Row, second: Row) -> Difference:
    """Newcombe's interval (1998, method 10): the halves of each run's own interval, added as squares.

    Perplexities are compared on the scale of logarithms.
    """
    is_ratio = point.kind == "perplexity"
    if not (math.isfinite(first["value"]) and math.isfinite(second["value"])):
        return Difference(point, first["value"], second["value"])
    scale, back = (math.log, math.exp) if is_ratio else (float, float)
    a, b = scale(first["value"]), scale(second["value"])
    if any(row[end] is None for row in (first, second) for end in ("low", "high")):
        return Difference(point, first["value"], second["value"], back(b - a))
    below = math.hypot(b - scale(second["low"]), scale(first["high"]) - a)
    above = math.hypot(scale(second["high"]) - b, a - scale(first["low"]))
    half = below if b > a else above  # the one that lies towards no difference
    p_value = math.erfc(abs(b - a) / half * _Z95 / math.sqrt(2)) if half > 0 else None
    ends = (back(b - a - below), back(b - a + above))
    return Difference(point, first["value"], second["value"], back(b - a), *ends, None, p_value)


def _mean(point: Point, found: dict[Point, Difference], pairs: dict[Point, Row]) -> Difference | None:
    """The mean over benchmarks if each is paired: tasks weigh the same, and are independent."""
    tasks = [one for one in found.values() if one.point[:3] == point[:3] and one.point.measure != "mean"]
    if not tasks or any(one.n is None for one in tasks):
        return None
    first, second = (
        sum(values) / len(tasks) for values in ([one.first for one in tasks], [one.second for one in tasks])
    )
    half = math.hypot(*((one.high - one.low) / 2 for one in tasks if one.low is not None and one.high is not None))
    low, high = (second - first + side * half / len(tasks) for side in (-1, 1))
    return Difference(point, first, second, second - first, low, high, pairs[point]["n"], pairs[point]["p_value"])


def _adjusted(found: list[Difference]) -> list[Difference]:
    tested = {place: one.p_value for place, one in enumerate(found) if one.p_value is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return [one._replace(p_adjusted=adjusted.get(place)) for place, one in enumerate(found)]
