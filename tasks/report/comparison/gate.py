"""The gate: compares each headline number of an instance with the baseline's, and says which moved."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from overedit.tasks.report.comparison.compare import Comparison, compare
from overedit.tasks.report.comparison.differences import Difference
from overedit.tasks.report.comparison.limits import GateOptions
from overedit.tasks.warehouse.tables import Row
from overedit.tasks.warehouse.warehouse import Warehouse

SIGNIFICANT = 0.05
"""The adjusted p value below which a number counts as moved."""
MOVED, WITHIN_NOISE, NOT_COMPARABLE = "moved", "within noise", "not comparable"


class Verdict(NamedTuple):
    """The comparison of an instance with its baseline."""

    rows: list[Row]
    """A row of the table `gates` per number, without run and instance."""
    text: str
    """In words, e.g. `3 numbers moved`."""

    @property
    def moved(self) -> list[Row]:
        """The numbers that moved."""
        return [row for row in self.rows if row["verdict"] == MOVED]

    @property
    def failures(self) -> list[Row]:
        """The numbers that fail the gate."""
        return [row for row in self.rows if row["failed"]]


def judge(
    warehouse: Warehouse, run: str, baseline: str, instance: str, limits: GateOptions | None, *, protocol: str
) -> Verdict:
    """Compare an instance with the baseline, on the questions that both were asked; orders of the edits are pooled.

    Args:
        warehouse: Has the rows of both.
        run: The run.
        baseline: One of its instances.
        instance: Another one.
        limits: What fails; None if nothing does.
        protocol: The protocol under which answers are scored.
    """
    first, second = f"{run}@{baseline}", f"{run}@{instance}"
    try:
        found = compare(warehouse, first, second, protocol=protocol, pool_orders=True)
    except ValueError as error:  # no number in common
        return Verdict([], f"not comparable with the baseline: {error}")
    rows = [{"baseline": baseline} | row for row in _rows(found, limits or GateOptions())]
    return Verdict(rows, verdict_text(rows))


def judged(differences: Iterable[Difference], limits: GateOptions) -> list[tuple[Difference, str, bool]]:
    """Each difference with its verdict, and whether it fails."""
    found = []
    for one in differences:
        kind, measure = one.point.kind, one.point.measure
        is_moved = one.p_adjusted is not None and one.p_adjusted < SIGNIFICANT
        is_broken = math.isfinite(one.first) != math.isfinite(one.second)
        verdict = MOVED if is_moved or is_broken else WITHIN_NOISE
        found.append((one, verdict, verdict == MOVED and limits.fails(kind, measure, one.difference)))
    return found


def verdict_text(rows: list[Row]) -> str:
    """The verdict in words."""
    moved, apart = (sum(row["verdict"] == kind for row in rows) for kind in (MOVED, NOT_COMPARABLE))
    text = "no number moved" if not moved else f"{moved:,} number{'s' if moved > 1 else ''} moved"
    return f"{text}, {apart:,} not comparable" if apart else text


def _rows(found: Comparison, limits: GateOptions) -> list[Row]:
    rows = []
    for one, verdict, failed in judged(found.differences, limits):
        reason = None
        if one.n is None and one.difference is not None:
            verdict, failed, reason = NOT_COMPARABLE, False, "they were not asked the same questions"
        trajectory, order_seed, label = found.trajectories[one.point.name]
        rows.append(
            {
                "trajectory": trajectory,
                "order_seed": order_seed,
                "label": label,
                "edit_count": one.point.edit_count,
                "kind": one.point.kind,
                "measure": one.point.measure,
                "protocol": found.protocol if one.point.kind == "outcome" else None,
                "before": one.first,
                "after": one.second,
                "limit": limits.limit_of(one.point.kind, one.point.measure),
                "verdict": verdict,
                "reason": reason,
                "failed": failed,
            }
            | {name: getattr(one, name) for name in ("difference", "low", "high", "n", "p_value", "p_adjusted")}
        )
    for point, side in found.unmatched:
        where = "the baseline" if side == 1 else "this instance"
        trajectory, order_seed, label = found.trajectories[point.name]
        rows.append(
            {"trajectory": trajectory, "order_seed": order_seed, "label": label, "edit_count": point.edit_count}
            | {"kind": point.kind, "measure": point.measure, "verdict": NOT_COMPARABLE, "failed": False}
            | {"reason": f"measured in {where} only"}
        )
    return rows
