"""The rows that a run writes about itself: its checkpoints, its turns, its requests, and how each trajectory ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from overedit.editing.requests import EditRequest
from overedit.editing.storage.checksums import digest
from overedit.editing.trajectory.checkpoint import Checkpoint
from overedit.tasks.runs.run import TrajectoryPoint, hardware, versions


def store_checkpoint(point: TrajectoryPoint, checkpoint: Checkpoint) -> None:
    """Store a checkpoint's tensors and costs as rows."""
    record, costs = checkpoint.record, checkpoint.costs
    tables = ("diagnostics", "checkpoints")
    if all(point.holds(table, record.key) for table in tables) and point.holds("costs", record.key, part="edit"):
        return
    weights = checkpoint.folder / "weights.safetensors"
    rows = [
        {
            "parameter": name,
            "sha256": tensor.sha256,
            "weight_norm": record.norms[name].weight,
            "base_norm": record.norms[name].base,
            "update_norm": record.norms[name].update,
            "path": str(checkpoint.folder),
            "bytes": 0 if record.pruned else weights.stat().st_size,
        }
        for name, tensor in record.tensors.items()
    ]
    rows_of_turns = chain(diagnostics(record.log), turn_seconds(record.log, costs.turn_seconds))
    point.store("diagnostics", rows_of_turns, key=record.key)
    point.store("checkpoints", rows, key=record.key)
    point.store_cost("edit", costs.seconds, costs.num_edits, key=record.key, peak_memory_bytes=costs.peak_memory_bytes)


def diagnostics(log: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of the table `diagnostics`: the numbers in the turns' logs, `<site>/<quantity>` or `<quantity>`."""
    for turn in log:
        for name, value in turn.items():
            if name in ("first", "last") or isinstance(value, str):
                continue
            site, _, quantity = name.rpartition("/")
            edits = {"first_edit": turn["first"], "last_edit": turn["last"]}
            yield edits | {"site": site or None, "quantity": quantity, "value": float(value)}


def turn_seconds(log: Sequence[Mapping[str, Any]], seconds: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Rows of the table `diagnostics`: what each turn took."""
    for turn, value in zip(log, seconds, strict=bool(seconds)):
        yield {"first_edit": turn["first"], "last_edit": turn["last"], "quantity": "seconds", "value": value}


def store_run(
    point: TrajectoryPoint,
    *,
    label: str,
    method_config: str,
    config: str,
    model_digest: str,
    engine: str,
    error: str | None,
    started_at: datetime,
) -> None:
    """Store how a trajectory ended, at its last planned edit count; a row that says so already is left as it is."""
    key = digest([model_digest, method_config, error])
    if point.holds("runs", key):
        return
    row = {
        "label": label,
        "config": config,
        "method_config": method_config,
        "model_digest": model_digest,
        "engine": engine,
        "versions": json.dumps(versions()),
        "hardware": hardware(),
        "started_at": started_at,
        "status": "failed" if error else "completed",
        "error": error,
    }
    point.store("runs", [row], key=key)


def store_requests(
    point: TrajectoryPoint, requests: Iterable[EditRequest], *, digest_of_requests: str, overwritten: Mapping[str, str]
) -> None:
    """Store the requests in the order of editing, once per run and ordering.

    Args:
        point: Any point of that ordering.
        requests: In the order of editing.
        digest_of_requests: Of their content.
        overwritten: Case id -> the case whose later edit has the same prompt and another target.
    """
    run, seed = point.run, point.order_seed
    columns = ("case_id", "prompt", "subject", "target_new", "target_true")
    rows = (
        {
            "run": run.name,
            "dataset": run.dataset,
            "order_seed": seed,
            "position": position,
            "overwritten_by": overwritten.get(request.case_id),
            **{column: getattr(request, column) for column in columns},
        }
        for position, request in enumerate(requests, start=1)
    )
    partition: dict[str, str | int] = {"run": run.name, "order_seed": seed}
    key = digest([run.dataset, digest_of_requests, dict(overwritten)])
    if not run.warehouse.holds("requests", partition, key):
        run.warehouse.write("requests", rows, partition=partition, key=key)


def store_engine_starts(point: TrajectoryPoint, starts: Iterable[tuple[str, float]]) -> None:
    """Store a row per start of the engine, (kind, seconds); a run that was stopped and continued has one per time."""
    for kind, seconds in starts:
        part = f"engine_start-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        point.store_cost("engine_start", seconds, 1, key=part, part=part, engine=kind)
