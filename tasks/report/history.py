"""The history of a run as text: its instances, and how each headline number came out in them."""

from __future__ import annotations

from rich.table import Column, Table
from rich.text import Text

from overedit.tasks.report.formatting import format_rows, rounded
from overedit.tasks.runs.instances import baseline_of, instances_of, shown_changes
from overedit.tasks.runs.run import unknown_run
from overedit.tasks.system.untrusted import printable
from overedit.tasks.warehouse.views import literal
from overedit.tasks.warehouse.warehouse import Warehouse

_NUMBERS = """
SELECT instance, label, order_seed, edit_count, measure, protocol, value, low, high, n, verdict
FROM history WHERE run = {run} ORDER BY label, order_seed, measure, protocol, edit_count, instance
"""
_AT_END = """
SELECT
    instance, label, order_seed, count(DISTINCT order_seed) OVER () > 1 AS has_orders, measure, protocol, value, verdict
FROM history
WHERE run = {run}
QUALIFY edit_count = max(edit_count) OVER (PARTITION BY instance, trajectory, order_seed, measure, protocol)
ORDER BY label, order_seed, measure, protocol, instance
"""


def history_rows(warehouse: Warehouse, run: str, format: str) -> str:
    """Every headline number of every instance, as CSV or JSON.

    Raises:
        ValueError: The format or the run is unknown.
    """
    _check(warehouse, run)
    return format_rows(warehouse.query(_NUMBERS.format(run=literal(run))), format)


def history_tables(warehouse: Warehouse, run: str) -> list[Table]:
    """The instances, and the numbers at the last edit count of each with a column per instance (the newest five).

    Raises:
        ValueError: The run is unknown.
    """
    _check(warehouse, run)
    rows, baseline = instances_of(warehouse, run), baseline_of(warehouse, run)
    instances = Table(Column("instance", no_wrap=True), "requested by", "files", "verdict", title="Instances")
    for row in rows:
        commit = f"commit {row['commit'][:10]}{'+' if row['dirty'] else ''}" if row["commit"] else "no commit"
        name = "\n".join(filter(None, [row["instance"], row["instance"] == baseline and "baseline", commit]))
        files = f"{rounded(row['num_computed'])} new\n{rounded(row['num_shared'])} shared"
        words = [row["status"], row["verdict"], row["gate"] and f"gate {row['gate']}", row["error"]]
        changed = f"\nchanged: {shown_changes(row)}" if shown_changes(row) else ""
        cells = (name, row["requested_by"] or "", files, "; ".join(filter(None, words)) + changed)
        instances.add_row(*(Text(printable(cell), overflow="fold") for cell in cells), end_section=True)
    return [instances, _numbers(warehouse, run, [row["instance"] for row in rows][-_MOST_COLUMNS:])]


_MOST_COLUMNS = 5


def _numbers(warehouse: Warehouse, run: str, instances: list[str]) -> Table:
    columns = [Column(instance, overflow="fold", justify="right") for instance in instances]
    table = Table("method", "measure", *columns, title="At the last edit count (* moved since the baseline)")
    values: dict[tuple[str, str], dict[str, str]] = {}
    for row in warehouse.query(_AT_END.format(run=literal(run))).to_pylist():
        label = f"{row['label']} (order {row['order_seed']})" if row["has_orders"] else row["label"]
        measure = f"{row['measure']} ({row['protocol']})" if row["protocol"] else row["measure"]
        mark = "*" if row["verdict"] == "moved" else ""
        values.setdefault((label, measure), {})[row["instance"]] = f"{rounded(row['value'])}{mark}"
    for (label, measure), of in values.items():
        table.add_row(Text(printable(label)), measure, *(of.get(instance, "-") for instance in instances))
    return table


def _check(warehouse: Warehouse, run: str) -> None:
    if not instances_of(warehouse, run):
        raise unknown_run(warehouse, run)
