"""The comparison of an instance with its run's baseline, as a Prefect task."""

from __future__ import annotations

import json

from overedit.tasks.report.comparison.gate import judge
from overedit.tasks.report.comparison.limits import GateOptions
from overedit.tasks.runs.instances import Instance, baseline_of, store_gates
from overedit.tasks.system.task_runs import retried_stage
from overedit.tasks.warehouse.tables import Row
from overedit.tasks.warehouse.vocabulary import PROTOCOLS
from overedit.tasks.warehouse.warehouse import Warehouse


@retried_stage
def compare_with_baseline(instance: Instance, limits: GateOptions | None) -> None:
    """Compare every headline number with the accepted instance, and store the verdicts.

    Args:
        instance: The instance, whose files are stored.
        limits: What fails it; None for nothing.
    """
    warehouse, run = instance.run.warehouse, instance.run.name
    baseline = baseline_of(warehouse, run)
    if baseline is None:
        instance.store(verdict="first instance", num_moved=None, gate=None)
        return
    if instance.row["num_computed"] == 0 and _files(warehouse, run, baseline) == _files(warehouse, run, instance.name):
        gate = None if limits is None else "passed"
        instance.store(baseline=baseline, num_moved=0, verdict="no change, nothing recomputed", gate=gate)
        return
    asked = json.loads(instance.row["config"])["evaluation"]["protocols"]
    protocol = next(protocol for protocol in PROTOCOLS if protocol in asked)
    verdict = judge(warehouse, run, baseline, instance.name, limits, protocol=protocol)
    store_gates(instance, verdict.rows)
    gate = None if limits is None else "failed" if verdict.failures else "passed"
    instance.store(baseline=baseline, num_moved=len(verdict.moved), verdict=verdict.text, gate=gate)


def failures_text(warehouse: Warehouse, instance: Instance) -> str:
    """The numbers that fail the gate, in words."""
    rows = warehouse.rows("gates", {"run": instance.run.name, "instance": instance.name})
    return "; ".join(_failure(row) for row in rows if row["failed"])


def _failure(row: Row) -> str:
    change = f"{row['before']:.4g} -> {row['after']:.4g}"
    interval = "" if row["low"] is None else f", 95 % interval {row['low']:.3g} to {row['high']:.3g}"
    limit = "" if row["limit"] is None else f", limit {row['limit']:g}"
    return f"{row['label']} at {row['edit_count']:,} edits: {row['measure']} {change}{interval}{limit}"


def _files(warehouse: Warehouse, run: str, instance: str) -> set[str]:
    """The names of an instance's files of numbers that are compared."""
    rows = warehouse.rows("instance_files", {"run": run, "instance": instance})
    return {row["file"] for row in rows if row["table_name"] not in ("costs", "runs")}
