"""The comparison of an instance with its run's baseline, as a Prefect task."""

from __future__ import annotations

import json
import logging

from httpx import HTTPError
from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext

from overedit.tasks.report.comparison.gate import MOVED, judge
from overedit.tasks.report.comparison.limits import GateOptions
from overedit.tasks.report.formatting import markdown_table, rounded
from overedit.tasks.runs.instances import Instance, baseline_of, shown_changes, store_gates
from overedit.tasks.system.task_runs import artifact_key, retried_stage
from overedit.tasks.system.untrusted import one_line
from overedit.tasks.warehouse.tables import Row
from overedit.tasks.warehouse.vocabulary import PROTOCOLS
from overedit.tasks.warehouse.warehouse import Warehouse

logger = logging.getLogger(__name__)


@retried_stage
def compare_with_baseline(instance: Instance, limits: GateOptions | None) -> None:
    """Compare every headline number with the accepted instance, store the verdicts, and show them in Prefect's UI.

    Args:
        instance: The instance, whose files are stored.
        limits: What fails it; None for nothing.
    """
    instance.store(**_compared(instance, limits))
    if FlowRunContext.get() is not None:
        _publish(instance)


def _compared(instance: Instance, limits: GateOptions | None) -> Row:
    """The values of an instance's row that say how it compares; the verdict on each number is stored."""
    warehouse, run = instance.run.warehouse, instance.run.name
    baseline = baseline_of(warehouse, run)
    if baseline is None:
        return {"verdict": "first instance"}
    if instance.row["num_computed"] == 0 and _files(warehouse, run, baseline) == _files(warehouse, run, instance.name):
        gate = None if limits is None else "passed"
        return {"baseline": baseline, "num_moved": 0, "verdict": "no change, nothing recomputed", "gate": gate}
    asked = json.loads(instance.row["config"])["evaluation"]["protocols"]
    protocol = next(protocol for protocol in PROTOCOLS if protocol in asked)
    verdict = judge(warehouse, run, baseline, instance.name, limits, protocol=protocol)
    store_gates(instance, verdict.rows)
    text = verdict.text if instance.row["num_computed"] else f"nothing recomputed, {verdict.text}"
    is_gated = limits is not None and verdict.rows  # a gate has not passed if nothing could be compared
    gate = ("failed" if verdict.failures else "passed") if is_gated else None
    return {"baseline": baseline, "num_moved": len(verdict.moved), "verdict": text, "gate": gate}


def failures_text(instance: Instance) -> str:
    """The numbers that fail the gate, in words."""
    return "; ".join(_number(row) for row in _gates(instance) if row["failed"])


def moved_text(instance: Instance) -> str:
    """The numbers that moved, a line each."""
    return "\n".join(_number(row) for row in _gates(instance) if row["verdict"] == MOVED)


def verdict_markdown(instance: Instance) -> str:
    """The verdict, what changed since the instance before, and a table of the numbers that moved."""
    row = instance.row
    lines = [f"# {instance.run.name}: {row['verdict']}", f"Instance {instance.name}, commit {row['commit'] or '-'}."]
    if row["baseline"]:
        lines.append(f"Compared with the accepted instance {row['baseline']}. Gate: {row['gate'] or 'none'}.")
    if shown_changes(row):
        lines.append(f"Changed since the instance before: {shown_changes(row)}.")
    moved = [row for row in _gates(instance) if row["verdict"] == MOVED]
    columns = ("label", "edit_count", "measure", "before", "after", "difference", "low", "high", "p_adjusted", "failed")
    table = markdown_table(columns, [[rounded(row[column]) for column in columns] for row in moved])
    return "\n\n".join([*lines, *([table] if moved else [])]) + "\n"


def _publish(instance: Instance) -> None:
    try:
        key = artifact_key("verdict", instance.run.name)
        create_markdown_artifact(key=key, markdown=verdict_markdown(instance), description="Which numbers moved")
    except HTTPError as error:
        logger.warning("Prefect's server does not answer; the verdict is not shown in its UI: %s", one_line(error))


def _gates(instance: Instance) -> list[Row]:
    return instance.run.warehouse.rows("gates", {"run": instance.run.name, "instance": instance.name})


def _number(row: Row) -> str:
    change = f"{row['before']:.4g} -> {row['after']:.4g}"
    interval = "" if row["low"] is None else f", 95 % interval {row['low']:.3g} to {row['high']:.3g}"
    limit = "" if row["limit"] is None else f", limit {row['limit']:g}"
    return f"{row['label']} at {row['edit_count']:,} edits: {row['measure']} {change}{interval}{limit}"


def _files(warehouse: Warehouse, run: str, instance: str) -> set[str]:
    """The names of an instance's files of numbers that are compared."""
    rows = warehouse.rows("instance_files", {"run": run, "instance": instance})
    return {row["file"] for row in rows if row["table_name"] not in ("costs", "runs")}
