"""Made-up runs in one warehouse, and made-up instances of one of them, as rows of the site."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from overedit.tasks.site.queries import SiteRows
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.synthetic_run import METHODS, chance, point, run_row

Row = dict[str, Any]

COUNTS = (1, 10, 100)
RUNS = {  # run -> model, data, methods
    "nightly": ("pocket-4m", "pocket_world", ("locft_bf", "ultraedit", "ft_l")),
    "weekly": ("pocket-4m", "pocket_world", ("locft_bf", "ultraedit")),
    "zsre-llama": ("meta-llama/Meta-Llama-3-8B-Instruct", "zsre", ("ultraedit", "ft_l")),
    "zsre-qwen": ("Qwen/Qwen3-4B", "zsre", ("locft_bf", "ft_l")),
    "counterfact": ("Qwen/Qwen3-4B", "counterfact", ("ultraedit",)),
}
BREAKING = "</script><script>document.title='broken'</script>"
"""A text that must stay one."""


def fill_runs(root: Path, runs: dict[str, tuple[str, str, tuple[str, ...]]] = RUNS, *, cases: int = 8) -> Warehouse:
    """Write the runs; the first one has two orders of the edits, the last one a label that looks like a script."""
    warehouse = Warehouse(root)
    for run, (model, dataset, methods) in runs.items():
        for seed in (0, 1) if run == next(iter(runs)) else (0,):
            for trajectory in ("base", *methods):
                shared = {"run": run, "model": model, "dataset": dataset}
                place = {"run": run, "trajectory": trajectory, "order_seed": seed}
                steps = [(0, 0)] if trajectory == "base" else list(zip((0, *COUNTS), COUNTS, strict=False))
                tables: dict[str, list[Row]] = {}
                for before, count in steps:
                    for table, rows in point(trajectory, count, before, COUNTS[-1], cases, seed).items():
                        tables.setdefault(table, []).extend(row | shared for row in rows)
                if trajectory != "base":
                    label = METHODS[trajectory] + (BREAKING if run == "counterfact" else "")
                    identity = tables["outcomes"][-1]
                    names = ("trajectory", "method", "order_seed", "edit_count")
                    tables["runs"] = [shared | {name: identity[name] for name in names} | run_row(label)]
                for table, rows in tables.items():
                    if rows:
                        warehouse.write(table, rows, partition=place, key="made up")
    return warehouse


CHANGED = 20
"""The night before which UltraEdit's learning rate was halved."""


def with_instances(rows: SiteRows, run: str = "nightly", *, nights: int = 30) -> SiteRows:
    """The same rows with instances of a run, a night each.

    The first one is the baseline; after `CHANGED` nights UltraEdit has half of its reliability, which moves and fails
    the gate; its portability cannot be compared from then on.
    """
    began = datetime(2026, 11, 1, 3, 15, tzinfo=UTC)
    ids = [f"{began + timedelta(days=night):%Y%m%dT%H%M%S}-{night:04x}" for night in range(nights)]
    instances, history, gates = [], [], []
    for night, id in enumerate(ids):
        has_moved = night >= CHANGED
        changes: list[Row] = []
        if night == CHANGED:
            changes = [
                {"key": "code of tasks/editing/methods/ultraedit.py", "before": "9f1c2ab", "after": "0e77d31"},
                {"key": "methods.1.learning_rate", "before": 1e-6, "after": 5e-7},
                {"key": BREAKING, "before": None, "after": ["<b>", {"x": 1}]},
            ]
        instances.append(
            {"run": run, "instance": id, "started_at": began + timedelta(days=night)}
            | {"ended_at": began + timedelta(days=night, seconds=312.4), "status": "completed", "error": None}
            | {"commit": f"{night:07x}{0:033x}", "dirty": night == CHANGED, "versions": json.dumps({"torch": "2.13.0"})}
            | {"hardware": "2 CPU cores (x86_64)", "requested_by": "schedule of benchmark/nightly"}
            | {"changes": json.dumps(changes), "num_computed": 14 if changes else 0, "num_shared": 30}
            | {
                "baseline": ids[0] if night else None,
                "num_moved": 2 * has_moved,
                "gate": None if night == 0 else "passed",
            }
            | {"verdict": "2 numbers moved" if has_moved else "no number moved" if night else "first instance"}
            | ({"gate": "failed"} if has_moved else {})
        )
        for row in (
            row for row in rows.points if row["run"] == run and row["measure"] != "seconds" and row["edit_count"]
        ):
            label = next(
                t["label"] for t in rows.trajectories if (t["run"], t["trajectory"]) == (run, row["trajectory"])
            )
            known = {
                name: row[name] for name in ("run", "trajectory", "order_seed", "edit_count", "measure", "protocol")
            }
            known |= {"instance": id, "label": label}
            hits = has_moved and row["trajectory"] == "ultraedit" and row["measure"] in ("reliability", "portability")
            noise = 0.0 if row["measure"] == "perplexity" else 0.02 * (chance(night, *known.values()) - 0.5)
            value = min(1.0, max(0.0, row["value"] + noise)) if row["measure"] != "perplexity" else row["value"]
            after = value / 2 if hits and row["measure"] == "reliability" else value
            numbers = {name: row[name] for name in ("low", "high", "n")}
            if after != value:
                numbers |= {"low": max(0.0, after - 0.1), "high": after + 0.1}
            history.append(known | {"value": after, "is_baseline": night == 0} | numbers)
            if night and row["order_seed"] == 0:  # two orders are compared together
                gate = known | _gate(ids[0], row["value"], after, hits, row["measure"]) | {"n": row["n"]}
                gates.append(
                    gate | {"order_seed": None, "part": "held_out" if row["measure"] == "perplexity" else None}
                )
                if row["measure"] == "capability":
                    gates.append(gates[-1] | {"part": "arithmetic"})
    accepted = [{"run": run, "instance": ids[0], "accepted_at": began, "accepted_by": "ada", "note": BREAKING}]
    return replace(rows, instances=instances, history=history, gates=gates, accepted=accepted)


def _gate(baseline: str, before: float, after: float, hits: bool, measure: str) -> Row:
    if hits and measure == "portability":
        nothing = dict.fromkeys(("before", "after", "difference", "low", "high", "p_adjusted", "limit"))
        reason = {"verdict": "not comparable", "reason": "the items changed", "failed": False}
        return {"baseline": baseline} | nothing | reason
    difference = after / before if measure == "perplexity" else after - before
    numbers = {"before": before, "after": after, "difference": difference, "low": difference - 0.05}
    verdict = {"verdict": "moved" if hits else "within noise", "reason": None, "failed": hits}
    limits = {"high": difference + 0.05, "p_adjusted": 1e-6 if hits else 1.0, "limit": -0.02}
    return {"baseline": baseline} | numbers | limits | verdict
