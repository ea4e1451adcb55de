"""Rates that were measured on this machine: from the costs of earlier runs in the same home."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError

from overedit.editing.methods.base import MethodConfig
from overedit.editing.methods.registry import METHODS
from overedit.editing.model.shape import ModelShape
from overedit.tasks.planning.trajectories import Tokens, editing_memory, operations
from overedit.tasks.runs.run import hardware
from overedit.tasks.warehouse.views import literal
from overedit.tasks.warehouse.warehouse import Warehouse

_EDITS = """
SELECT c.run, c.trajectory, c.method, c.order_seed, c.edit_count, c.seconds, c.num_items, c.peak_memory_bytes,
    r.method_config, r.config
FROM costs AS c JOIN runs AS r USING (run, trajectory, order_seed)
WHERE c.stage = 'edit' AND c.model = {model} AND r.hardware = {hardware} AND c.num_items > 0
ORDER BY c.run, c.trajectory, c.order_seed, c.edit_count
"""
_STAGES = """
SELECT stage, sum(seconds) / sum(num_items) AS seconds, count(*) AS rows
FROM costs SEMI JOIN (SELECT run FROM runs WHERE hardware = {hardware}) AS here USING (run)
WHERE stage <> 'edit' AND model = {model} AND engine = {engine} AND num_items > 0
GROUP BY stage
"""
_ROWS = "SELECT count(*) AS rows FROM outcomes"


class Rates(NamedTuple):
    """What earlier runs of the same model on the same hardware took."""

    edit: Mapping[str, float] = {}
    """Method -> operations per second."""
    stages: Mapping[str, float] = {}
    """Stage of the costs -> seconds per item."""
    process_bytes: float | None = None
    """Memory of the process that edits, beside what is counted; the median."""


def measured_rates(warehouse: Warehouse, model: str, engine: str, shape: ModelShape, tokens: Tokens) -> Rates:
    """Read the rates from a warehouse; empty where nothing was measured.

    Args:
        warehouse: The home's.
        model: The model's name in tables.
        engine: `vllm` or `transformers`.
        shape: The model's.
        tokens: Those of the requests to come, also taken for the earlier ones.
    """
    named = {"model": literal(model), "hardware": literal(hardware()), "engine": literal(engine)}
    rows = warehouse.query(_EDITS.format(**named)).to_pylist()
    stages = warehouse.query(_STAGES.format(**named)).to_pylist()
    done, overheads = _of_edits(rows, shape, tokens)
    return Rates(
        edit={method: total / seconds for method, (total, seconds) in done.items() if seconds > 0},
        stages={row["stage"]: row["seconds"] for row in stages},
        process_bytes=median(overheads) if overheads else None,
    )


def _of_edits(
    rows: Iterable[Mapping[str, Any]], shape: ModelShape, tokens: Tokens
) -> tuple[dict[str, tuple[float, float]], list[float]]:
    """Method -> (operations, seconds) of earlier edits, and the memory of their processes beside what is counted."""
    done: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    overheads: list[float] = []
    begun: set[tuple[Any, ...]] = set()
    for row in rows:
        method = _method(row)
        if method is None:
            continue
        of_calls = _calls(method, row)
        counted = operations(method, shape, tokens, of_calls)
        line = (row["run"], row["trajectory"], row["order_seed"])
        if line in begun:  # what the first call needs in addition is part of the first row alone
            counted -= max(method.work_of_shards(shape, tokens.of(size)).setup_operations for size in of_calls)
        begun.add(line)
        total, seconds = done[row["method"]]
        done[row["method"]] = total + counted, seconds + row["seconds"]
        if row["peak_memory_bytes"] is not None and not torch.cuda.is_available():  # else it is the GPU's
            memory = editing_memory(method, shape, tokens, of_calls, process_bytes=0, is_mapped=True, on_gpu=False)
            overheads.append(row["peak_memory_bytes"] - memory.host - memory.mapped)
    return dict(done), overheads


def _method(row: Mapping[str, Any]) -> MethodConfig | None:
    """The configuration of an earlier trajectory; None where this version does not know it."""
    if row["method"] not in METHODS or row["method_config"] is None:
        return None
    try:
        return METHODS[row["method"]].config.model_validate_json(row["method_config"])
    except ValidationError:
        return None


def _calls(method: MethodConfig, row: Mapping[str, Any]) -> dict[int, int]:
    """The calls that made a row's edits; a cumulative method's are taken to be one."""
    edits = int(row["num_items"])
    turn = int(json.loads(row["config"] or "{}").get("turn_size", edits))
    if method.cumulative or edits <= turn:
        return {edits: 1}
    return {turn: edits // turn} | ({edits % turn: 1} if edits % turn else {})


def bytes_per_outcome(warehouse: Warehouse, num_bytes: int) -> float | None:
    """Bytes of the warehouse's files of outcomes for each of their rows; None without rows."""
    (row,) = warehouse.query(_ROWS).to_pylist()
    return num_bytes / row["rows"] if row["rows"] else None
