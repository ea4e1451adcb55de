"""The differences between the numbers of two runs: paired where both asked the same questions, else by intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

from overedit.tasks.warehouse.statistics import holm
from overedit.tasks.warehouse.tables import Row

Ask = Callable[..., list[Row]]
"""(name of a query, e.g. `comparison/points`, **its parameters) -> its rows."""

MEASURES = {
    "edit": "reliability",
    "rephrase": "generalization",
    "persona": "persona",
    "locality": "locality",
    "portability": "portability",
}
"""Probe -> the name of its score."""
_KINDS = {"outcome": "comparison/outcomes", "capability": "comparison/items", "perplexity": "comparison/texts"}
"""Kind of a measure -> the query for its paired differences."""
_PAIRED = ("first", "second", "difference", "low", "high", "n", "p_value")
_Z95 = NormalDist().inv_cdf(0.975)


class Point(NamedTuple):
    """One measure of one trajectory at one edit count."""

    name: str
    """The trajectory's display name."""
    edit_count: int
    kind: str
    """outcome | capability | perplexity"""
    measure: str
    """For outcomes one of MEASURES, for capability a task or `mean`, for perplexity a corpus."""


class Difference(NamedTuple):
    """A point's value in both runs, and the difference."""

    point: Point
    first: float
    """If the difference is paired: over the pairs only."""
    second: float
    difference: float | None = None
    """second - first; for perplexity second / first. None if one of them is not finite."""
    low: float | None = None
    high: float | None = None
    """The difference's 95 % interval."""
    n: int | None = None
    """Number of pairs; None if the difference is not paired."""
    p_value: float | None = None
    p_adjusted: float | None = None
    """Adjusted by Holm's method over all differences of the comparison."""


def differences(ask: Ask, protocol: str) -> list[Difference]:
    """The differences of every measure that both runs have, in the order of names and edit counts.

    Args:
        ask: Answers the queries of `warehouse/sql/comparison/`.
        protocol: The protocol under which answers are scored.
    """
    points = _points(ask, protocol)
    pairs = {
        Point(row["name"], row["edit_count"], kind, MEASURES.get(row["measure"]) or row["measure"]): row
        for kind, query in _KINDS.items()
        for row in ask(query, **({"protocol": protocol} if kind == "outcome" else {}))
    }
    found: dict[Point, Difference] = {}
    for point in sorted((point for point, sides in points.items() if len(sides) == 2), key=_order):
        sides, pair = points[point], pairs.get(point)
        if pair is not None and point.measure != "mean" and 2 * pair["n"] >= min(sides[1]["n"], sides[2]["n"]):
            found[point] = Difference(point, **{name: pair[name] for name in _PAIRED})
        else:
            found[point] = _unpaired(point, sides[1], sides[2])
    means = [point for point in found if point[2:] == ("capability", "mean")]
    found |= {point: _mean(point, found, pairs) or found[point] for point in means}
    return _adjusted(list(found.values()))


def unmatched(ask: Ask, protocol: str) -> list[tuple[Point, int]]:
    """The measures that only one run has, each with that run's number; arguments as of `differences`."""
    points = _points(ask, protocol)
    return [(point, next(iter(points[point]))) for point in sorted(points, key=_order) if len(points[point]) == 1]


def _points(ask: Ask, protocol: str) -> dict[Point, dict[int, Row]]:
    """Measure -> number of a run -> its value there."""
    points: dict[Point, dict[int, Row]] = {}
    for row in ask("comparison/points", protocol=protocol):
        if row["value"] is not None:
            point = Point(row["name"], row["edit_count"], row["kind"], row["measure"])
            points.setdefault(point, {})[row["side"]] = row
    return points


def _order(point: Point) -> tuple[Any, ...]:
    order = [*MEASURES.values(), "mean"]
    rank = order.index(point.measure) if point.measure in order else len(order)
    return point.name, point.edit_count, list(_KINDS).index(point.kind), rank, point.measure


def _unpaired(point: Point, first: Row, second: Row) -> Difference:
    """The difference of two independent values, with Newcombe's interval (1998, method 10).

    Its half-widths are the root of the summed squares of the runs' half-widths. Perplexities are compared by their
    logarithms.
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
    half = below if b > a else above  # the half-width towards a difference of 0
    p_value = math.erfc(abs(b - a) / half * _Z95 / math.sqrt(2)) if half > 0 else None
    ends = (back(b - a - below), back(b - a + above))
    return Difference(point, first["value"], second["value"], back(b - a), *ends, None, p_value)


def _mean(point: Point, found: dict[Point, Difference], pairs: dict[Point, Row]) -> Difference | None:
    """The mean over benchmarks, each with the same weight and independent of the others; None if one is not paired."""
    tasks = [one for one in found.values() if one.point[:3] == point[:3] and one.point.measure != "mean"]
    if not tasks or any(one.n is None for one in tasks):
        return None
    first = sum(one.first for one in tasks) / len(tasks)
    second = sum(one.second for one in tasks) / len(tasks)
    half = math.hypot(*((one.high - one.low) / 2 for one in tasks if one.low is not None and one.high is not None))
    low, high = (second - first + side * half / len(tasks) for side in (-1, 1))
    return Difference(point, first, second, second - first, low, high, pairs[point]["n"], pairs[point]["p_value"])


def _adjusted(found: list[Difference]) -> list[Difference]:
    """The differences with adjusted p values."""
    p_values = {index: one.p_value for index, one in enumerate(found) if one.p_value is not None}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return [one._replace(p_adjusted=adjusted.get(index)) for index, one in enumerate(found)]
