"""The verdicts on measured edit counts, from the rows of the warehouse alone."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from overedit.editing.storage.checksums import digest
from overedit.tasks.runs.run import TrajectoryPoint
from overedit.tasks.search.bracket import Likely, Sure, Verdict
from overedit.tasks.search.options import SearchOptions
from overedit.tasks.warehouse.tables import Row
from overedit.tasks.warehouse.views import literal

_Z95 = 1.959963984540054

_CHECKS = """
SELECT definition, edit_count, is_met, value, low, high, "limit" FROM collapse_checks
WHERE trajectory = {trajectory} AND order_seed = {order_seed} AND edit_count > 0
"""


def read_verdicts(
    point: TrajectoryPoint, options: SearchOptions, *, measured: Collection[int], broken: Collection[int] = ()
) -> dict[str, dict[int, Verdict]]:
    """The verdicts on a trajectory's edit counts, by definition.

    Args:
        point: Any point of the trajectory.
        options: The definitions, and how sure a verdict has to be.
        measured: The edit counts whose rows are of this execution.
        broken: Those of them whose weights are not finite: bad by every definition.
    """
    asked = _CHECKS.format(trajectory=literal(point.trajectory), order_seed=point.order_seed)
    with point.run.warehouse.connect(sql=f"{asked} AND run = {literal(point.run.name)}") as connection:
        rows = connection.sql(f"{asked} AND run = {literal(point.run.name)}").to_arrow_table().to_pylist()
    found: dict[str, dict[int, Verdict]] = {}
    for definition in options.definition:
        of_counts: dict[int, list[Verdict]] = {count: [Verdict("bad", "bad")] for count in broken}
        for row in rows:
            if row["definition"] == definition and row["edit_count"] in measured and row["edit_count"] not in broken:
                of_counts.setdefault(row["edit_count"], []).append(judge(row, options.z()))
        found[definition] = {count: _worst(verdicts) for count, verdicts in sorted(of_counts.items())}
    return found


def judge(row: Row, z: float) -> Verdict:
    """The verdict of one row of `collapse_checks`.

    Args:
        row: The row. Where it has an interval, the number is bad below the limit.
        z: Half-width of the interval that decides, in standard errors; the row's has 1.96.
    """
    if row["low"] is None or row["high"] is None:
        kind: Likely = "bad" if row["is_met"] else "good"
        return Verdict(kind, kind)
    likely: Likely = "bad" if row["value"] < row["limit"] else "good"
    bound = row["high"] if likely == "bad" else row["low"]
    bound = row["value"] + (bound - row["value"]) * z / _Z95
    is_sure = bound < row["limit"] if likely == "bad" else bound >= row["limit"]
    return Verdict(likely if is_sure else "undecided", likely)


def store_verdicts(point: TrajectoryPoint, options: SearchOptions, verdicts: dict[str, dict[int, Verdict]]) -> None:
    """Store the verdicts on a trajectory's edit counts in the table `verdicts`, one file for each count."""
    for count in sorted({count for of_counts in verdicts.values() for count in of_counts}):
        rows = list(_rows(count, options, verdicts))
        here, key = point.at(count), digest(rows)
        if not here.reuse("verdicts", key):
            here.store("verdicts", rows, key=key)


def _rows(count: int, options: SearchOptions, verdicts: dict[str, dict[int, Verdict]]) -> Iterable[Row]:
    for rank, definition in enumerate(options.definition, start=1):
        if count in verdicts[definition]:
            sure, likely = verdicts[definition][count]
            row = {"definition": definition, "rank": rank, "verdict": sure, "likely": likely}
            yield row | {"z": options.z(), "confidence": options.confidence}


def _worst(verdicts: Collection[Verdict]) -> Verdict:
    """The verdict of a definition that has several criteria: bad if one is bad, good if all are good."""
    order: tuple[Sure, ...] = ("bad", "undecided", "good")
    sure = min((each.sure for each in verdicts), key=order.index)
    return Verdict(sure, "bad" if any(each.likely == "bad" for each in verdicts) else "good")
