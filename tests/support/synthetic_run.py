"""A made-up run in a warehouse: three methods at 0, 1, 10, 100 and 1,000 edits, one of which breaks; or a larger one.

The numbers follow from smooth curves and a hash, so they are the same each time; they measure nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from overedit.tasks.warehouse.warehouse import Warehouse

RUN = "synthetic"
COUNTS = (1, 10, 100, 1000)
METHODS = {"locft_bf": "LocFT-BF", "ultraedit": "UltraEdit", "ft_l": "FT-L"}
SHARES = {  # (method, probe) -> chance of a right answer at each of COUNTS
    ("locft_bf", "edit"): (1, 1, 0.99, 0.98),
    ("locft_bf", "rephrase"): (1, 0.9, 0.86, 0.84),
    ("locft_bf", "locality"): (1, 0.97, 0.93, 0.9),
    ("locft_bf", "portability"): (0.5, 0.5, 0.4, 0.42),
    ("ultraedit", "edit"): (1, 1, 0.95, 0.83),
    ("ultraedit", "rephrase"): (1, 0.9, 0.8, 0.71),
    ("ultraedit", "locality"): (1, 0.98, 0.95, 0.88),
    ("ultraedit", "portability"): (0.4, 0.45, 0.43, 0.39),
    ("ft_l", "edit"): (1, 0.7, 0.3, 0.04),
    ("ft_l", "rephrase"): (1, 0.5, 0.2, 0.02),
    ("ft_l", "locality"): (0.9, 0.5, 0.1, 0.01),
    ("ft_l", "portability"): (0.4, 0.2, 0.1, 0.0),
}
BASE = {"edit": 0.02, "rephrase": 0.02, "locality": 0.96, "portability": 0.1}
TASKS = {"arithmetic": (0.93, 0.0), "world_choice": (0.97, 0.25), "agreement": (0.99, 0.5)}
KEPT = {"locft_bf": (1, 1, 0.99, 0.97), "ultraedit": (1, 0.99, 0.97, 0.93), "ft_l": (0.98, 0.7, 0.2, 0.05)}
PERPLEXITY = {"locft_bf": (1, 1.01, 1.05, 1.2), "ultraedit": (1, 1.02, 1.2, 1.6), "ft_l": (1.3, 8, 300, 5e4)}
PROMPT = "The <b>capital</b> of country {} & co is"


def chance(*parts: object) -> float:
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def between(values: Sequence[float], count: int) -> float:
    """A curve given at COUNTS, at any edit count."""
    place = min(math.log10(count), len(COUNTS) - 1)
    low = min(int(place), len(COUNTS) - 2)
    return values[low] + (values[low + 1] - values[low]) * (place - low)


def kind(trajectory: str) -> str:
    """Whose curves a trajectory has: `ultraedit-2` is the second that has UltraEdit's."""
    return trajectory.partition("-")[0]


def trajectories(number: int) -> dict[str, str]:
    """Trajectory -> label: the three of METHODS, and as many more of their kinds as are needed."""
    names = list(METHODS)
    every = [(names[i % 3], i // 3 + 1) for i in range(number)]
    return {
        name if turn == 1 else f"{name}-{turn}": METHODS[name] if turn == 1 else f"{METHODS[name]} {turn}"
        for name, turn in every
    }


def identity(trajectory: str, edit_count: int, seed: int = 0) -> dict[str, Any]:
    method = "none" if trajectory == "base" else kind(trajectory)
    return {
        "run": RUN,
        "trajectory": trajectory,
        "model": "pocket-4m",
        "method": method,
        "dataset": "pocket_world",
        "order_seed": seed,
        "edit_count": edit_count,
    }


def partition(trajectory: str, edit_count: int, seed: int = 0) -> dict[str, Any]:
    return {"run": RUN, "trajectory": trajectory, "order_seed": seed, "edit_count": edit_count}


def outcomes(trajectory: str, count: int, last: int, cases: int, seed: int) -> Iterator[dict[str, Any]]:
    planned = count or last
    asked = min(cases, planned)
    positions = [round(1 + i * (planned - 1) / max(1, asked - 1)) for i in range(asked)]
    for position in positions:
        for probe in BASE:
            right = between(SHARES[kind(trajectory), probe], count) if count else BASE[probe]
            for protocol, lift in {"generated": 0.0, "teacher_forced": 0.5, "probability": 0.3}.items():
                share = right + (1 - right) * lift * (right > 0.05)
                row = outcome(trajectory, count, position, probe, protocol, share, seed)
                yield row | {"case_id": f"case-{1 + (position - 1 + 13 * seed) % last}"}


def outcome(
    trajectory: str, count: int, position: int, probe: str, protocol: str, share: float, seed: int
) -> dict[str, Any]:
    is_right = chance(trajectory, count, position, probe, protocol, *([seed] if seed else [])) < share
    breaks = kind(trajectory) == "ft_l" and count >= 100
    broken = "the the the the the the the the city" if chance(position, count) < 0.4 else ""
    wrong = broken if breaks else "Elsewhere"
    row = identity(trajectory, count, seed) | {
        "position": position,
        "probe": probe,
        "probe_index": 0,
        "protocol": protocol,
        "prompt": PROMPT.format(position),
        "target": f"City {position}",
        "score": float(is_right),
        "agreement": None,
        "reason": None,
    }
    if protocol == "generated":
        row |= {"output": f"City {position}" if is_right else wrong, "num_tokens": 4, "finish_reason": "eos"}
    if probe == "locality":
        row["agreement"] = 1.0 if count == 0 else float(is_right)
    if probe == "portability" and protocol == "probability":
        row |= {"score": None, "reason": "no second answer to compare with"}
    return row


def fill(
    root: Path,
    *,
    cases: int = 60,
    methods: int = 3,
    counts: Sequence[int] = COUNTS,
    seeds: Sequence[int] = (0,),
    by_count: bool = True,
) -> Warehouse:
    """Write the whole run; `cases` are probed at each edit count at most.

    A run has a file for each edit count; without `by_count` it has one for each trajectory, which is sooner written.
    """
    warehouse = Warehouse(root)
    for seed, trajectory in product(seeds, ("base", *trajectories(methods))):
        steps = [(0, 0)] if trajectory == "base" else list(zip((0, *counts), counts, strict=False))
        points = {count: point(trajectory, count, before, counts[-1], cases, seed) for before, count in steps}
        for table in ("outcomes", "capability", "perplexity", "costs", "checkpoints"):
            whole = {"run": RUN, "trajectory": trajectory, "order_seed": seed}
            if by_count:
                files = [(partition(trajectory, count, seed), tables[table]) for count, tables in points.items()]
            else:
                files = [(whole, [row for tables in points.values() for row in tables[table]])]
            for place, rows in files:
                if rows:
                    warehouse.write(table, rows, partition=place, key="made up")
        if trajectory != "base":
            row = identity(trajectory, counts[-1], seed) | run_row(trajectories(methods)[trajectory])
            warehouse.write("runs", [row], partition=partition(trajectory, counts[-1], seed), key="made up")
    return warehouse


def point(
    trajectory: str, count: int, before: int, last: int, cases: int, seed: int
) -> dict[str, list[dict[str, Any]]]:
    """The rows of one checkpoint."""
    here = identity(trajectory, count, seed)
    kept = between(KEPT[kind(trajectory)], count) if count else 1.0
    multiple = between(PERPLEXITY[kind(trajectory)], count) if count else 1.0
    texts = [
        {"corpus": "held_out", "text_id": i, "nll": 20 * (math.log(4 * multiple) + 0.1 * (i % 5)), "num_tokens": 20}
        for i in range(40)
    ]
    return {
        "outcomes": list(outcomes(trajectory, count, last, cases, seed)),
        "capability": [here | capability(task, kept) for task in TASKS],
        "perplexity": [here | text for text in texts],
        "costs": [here | cost for cost in costs(trajectory, count, before)],
        "checkpoints": [here | weights(trajectory, count)] if count else [],
    }


def capability(task: str, kept: float) -> dict[str, Any]:
    base, guessing = TASKS[task]
    value = guessing + (base - guessing) * kept
    error = math.sqrt(value * (1 - value) / 200)
    numbers = {"value": value, "stderr": error, "num_samples": 200, "chance": guessing}
    return {"task": task, "metric": "acc", "main": True} | numbers


def costs(trajectory: str, count: int, before: int) -> list[dict[str, Any]]:
    if not count:
        return [{"stage": "engine_start", "seconds": 6.0, "num_items": 1, "engine": "vllm"}]
    edits = count if kind(trajectory) == "locft_bf" else count - before
    seconds = {"locft_bf": 0.08, "ultraedit": 0.02, "ft_l": 0.3}[kind(trajectory)] * edits
    edit = {"stage": "edit", "seconds": seconds, "num_items": edits, "peak_memory_bytes": 400_000_000}
    return [edit, {"stage": "swap", "seconds": 0.02, "num_items": 1, "verified": True, "engine": "vllm"}]


def weights(trajectory: str, count: int) -> dict[str, Any]:
    moved = {"locft_bf": 1.0, "ultraedit": 1.6, "ft_l": 9.0}[kind(trajectory)] * count**0.5 / 10
    name = "model.layers.3.mlp.down_proj.weight"
    return {
        "parameter": name,
        "weight_norm": 30 + moved / 3,
        "base_norm": 30.0,
        "update_norm": moved,
        "sha256": "00",
        "bytes": 1,
    }


def run_row(label: str) -> dict[str, Any]:
    config = {"name": RUN, "edit_counts": COUNTS, "note": "</script><script>document.title='broken'</script>"}
    return {
        "label": label,
        "config": json.dumps(config),
        "method_config": json.dumps({"epochs": 25}),
        "model_digest": "0123456789abcdef",
        "engine": "vllm",
        "versions": json.dumps({"torch": "2.13.0", "vllm": "0.32.0"}),
        "hardware": "2 CPU cores (x86_64)",
        "started_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "status": "completed",
        "error": None,
    }


def told(root: Path) -> Warehouse:
    """The made-up run, of which one method told what its updates did, two turns to each edit count."""
    warehouse = fill(root, cases=4, by_count=False)
    for count in COUNTS:
        rows = [
            identity("ft_l", count)
            | {"first_edit": turn, "last_edit": turn, "site": site, "quantity": quantity, "value": value * size * count}
            for turn, size in ((count - 1, 1.0), (count, 0.5))
            for site, value in (("1.down_proj", 2.0), ("2.down_proj", 3.0))
            for quantity in ("preservation", "update_norm", "memorization")
        ]
        rows[0]["value"] = 0.0  # nothing that a logarithm could show
        warehouse.write("diagnostics", rows, partition=partition("ft_l", count), key="made up")
    return warehouse


def fill_samples(warehouse: Warehouse, *, items: int = 200) -> None:
    """Write `items` of each task at each edit count; how many of them are right follows the task's score.

    An item has one difficulty in all checkpoints, so what is lost stays lost, but for a few that come and go.
    """
    points = [("base", 0, 1.0), *((m, count, KEPT[m][step]) for m in METHODS for step, count in enumerate(COUNTS))]
    for trajectory, count, kept in points:
        here = identity(trajectory, count)
        rows = []
        for task, (base, guessing) in TASKS.items():
            share = guessing + (base - guessing) * kept
            for item in range(items):
                luck = 0.02 * (chance(trajectory, count, task, item) - 0.5)
                is_right = chance(task, item) + luck < share
                rows.append(here | {"task": task, "doc_id": item, "metric": "acc", "value": float(is_right)})
        warehouse.write("capability_samples", rows, partition=partition(trajectory, count), key="made up")
