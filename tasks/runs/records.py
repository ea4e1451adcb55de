"""The rows that describe a run: its checkpoints, turns and requests, and the end of each trajectory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

from overedit.editing.requests import EditRequest
from overedit.editing.storage.checksums import digest
from overedit.editing.trajectory.checkpoint import Checkpoint
from overedit.tasks.runs.run import WITHOUT_EFFECT, TrajectoryPoint, hardware
from overedit.tasks.storage.working_copy import shown_path
from overedit.tasks.system.packages import versions


def store_checkpoint(point: TrajectoryPoint, checkpoint: Checkpoint) -> None:
    """Store the tensors, turns and cost of a checkpoint as rows, unless they are stored already."""
    record, costs = checkpoint.record, checkpoint.costs
    tables = ("diagnostics", "checkpoints")
    if all(point.reuse(table, record.key) for table in tables) and point.reuse("costs", record.key, part="edit"):
        return
    branched = record.branched_from not in (None, record.edit_count)
    rows_of_turns = chain(diagnostics(record.log, branched), turn_seconds(record.log, costs.turn_seconds, branched))
    point.store("diagnostics", rows_of_turns, key=record.key)
    point.store("checkpoints", tensor_rows(checkpoint), key=record.key)
    more: dict[str, Any] = {"peak_memory_bytes": costs.peak_memory_bytes, "ended_at": costs.ended_at}
    point.store_cost("edit", costs.seconds, costs.num_edits, key=record.key, **more)


def store_checkpoints(point: TrajectoryPoint, checkpoints: Sequence[Checkpoint]) -> list[int]:
    """Store the records of a trajectory's checkpoints: their tensors, their turns, and what they took.

    Returns:
        Their edit counts.
    """
    for checkpoint in checkpoints:
        store_checkpoint(point.at(checkpoint.record.edit_count), checkpoint)
    return [checkpoint.record.edit_count for checkpoint in checkpoints]


def tensor_rows(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """Rows of the table `checkpoints`, without the identity columns."""
    record, weights = checkpoint.record, checkpoint.folder / "weights.safetensors"
    return [
        {
            "parameter": name,
            "sha256": tensor.sha256,
            "weight_norm": record.norms[name].weight,
            "base_norm": record.norms[name].base,
            "update_norm": record.norms[name].update,
            "path": shown_path(checkpoint.folder),
            "bytes": 0 if record.pruned else weights.stat().st_size,
            "branched_from": record.branched_from,
            "schedule": record.schedule,
        }
        for name, tensor in record.tensors.items()
    ]


def diagnostics(log: Sequence[Mapping[str, Any]], branched: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of the table `diagnostics` from the logs of turns, whose keys are `<site>/<quantity>` or `<quantity>`.

    Args:
        log: One entry per turn.
        branched: Whether the last turn was on a branch.
    """
    for turn in log:
        for name, value in turn.items():
            if name in ("first", "last") or isinstance(value, str):
                continue
            site, _, quantity = name.rpartition("/")
            edits = _edits(turn, branched and turn is log[-1])
            yield edits | {"site": site or None, "quantity": quantity, "value": float(value)}


def turn_seconds(
    log: Sequence[Mapping[str, Any]], seconds: Sequence[float], branched: bool = False
) -> Iterator[dict[str, Any]]:
    """Rows of the table `diagnostics`: the seconds of each turn."""
    for turn, value in zip(log, seconds, strict=bool(seconds)):
        yield _edits(turn, branched and turn is log[-1]) | {"quantity": "seconds", "value": value}


def _edits(turn: Mapping[str, Any], on_branch: bool) -> dict[str, Any]:
    return {"first_edit": turn["first"], "last_edit": turn["last"], "on_branch": on_branch}


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
    """Store the end of a trajectory, at its last planned edit count, unless the same end is stored already."""
    settings = {name: value for name, value in json.loads(config).items() if name not in WITHOUT_EFFECT}
    key = digest([model_digest, method_config, settings, error, versions()])
    if point.reuse("runs", key):
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
    """Store the requests of a run, once per order of the edits.

    Args:
        point: Any point with that order.
        requests: In the order of editing.
        digest_of_requests: Digest of their content.
        overwritten: Case id -> id of the case that is edited later, with the same prompt and another target.
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
    if not run.reuse("requests", partition, key):
        run.store("requests", rows, partition=partition, key=key)


def store_engine_starts(point: TrajectoryPoint, starts: Sequence[tuple[str, float]], *, continues: bool) -> None:
    """Store the cost of each start of the engine, a row each.

    Args:
        point: The pristine model's.
        starts: (kind, seconds) of each start.
        continues: Whether the rows of earlier starts stay: they belong to a run that this one continues. They stay as
            well if there was no start.
    """
    stage = "engine_start"
    rows = [{"stage": stage, "seconds": seconds, "num_items": 1, "engine": kind} for kind, seconds in starts]
    if continues or not starts:
        columns = ("stage", "seconds", "num_items", "engine")
        before = point.run.warehouse.rows("costs", point.partition)
        rows = [{name: row[name] for name in columns} for row in before if row["stage"] == stage] + rows
    key = digest(rows)
    if rows and not point.reuse("costs", key, part=stage):
        point.store("costs", rows, key=key, part=stage)
