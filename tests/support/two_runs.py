"""Two small runs, `before` and `after`, whose differences can be worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.synthetic_run import run_row

Row = dict[str, Any]

RIGHT = {"before": {0, 1, 2, 3, 4, 5, 6, 7}, "after": {0, 1, 2, 3, 8}}
"""Of ten edit prompts those answered right: four are lost, one is gained."""
ITEMS = {  # task -> (metric, each run's values)
    "x": ("acc", {"before": [1, 1, 0, 0], "after": [1, 0, 0, 0]}),
    "y": ("exact_match", {"before": [1, 0], "after": [1, 1]}),
}
NLL = {"before": [10.0, 20.0], "after": [12.0, 20.0]}
"""Of two texts of ten tokens each."""


def identity(run: str, **more: Any) -> Row:
    row = {"run": run, "trajectory": "ft-l", "model": "pocket-4m", "method": "ft_l", "dataset": "pocket_world"}
    return row | {"order_seed": 0, "edit_count": 10} | more


def write(warehouse: Warehouse, table: str, rows: list[Row], part: str = "") -> None:
    warehouse.write(table, rows, partition={"run": rows[0]["run"]}, key="k", part=part)


def outcome(run: str, case: int, score: float, **more: Any) -> Row:
    row = {"position": 1 + case, "case_id": f"case-{case}", "probe": "edit", "probe_index": 0, "protocol": "generated"}
    return identity(run) | row | {"prompt": f"Prompt {case}", "target": "City", "output": "", "score": score} | more


def fill_two(root: Path) -> Warehouse:
    """Write both runs."""
    warehouse = Warehouse(root)
    for run, nlls in NLL.items():
        config = {
            "name": run,
            "home": ".",
            "methods": [],
            "dataset": {"limit": 10},
            "turn_size": {"before": 1}.get(run, 5),
        }
        ended = run_row("FT-L") | {"config": json.dumps(config), "method_config": json.dumps({"norm": 0.1, "steps": 5})}
        if run == "after":
            ended |= {"method_config": json.dumps({"norm": 0.2, "steps": 5, "new": None})}
        write(warehouse, "runs", [identity(run) | ended])
        write(warehouse, "outcomes", [outcome(run, case, float(case in RIGHT[run])) for case in range(10)])
        scores, samples = [], []
        for task, (metric, values) in ITEMS.items():
            mean, size = sum(values[run]) / len(values[run]), len(values[run])
            score = {"task": task, "metric": metric, "main": True, "value": mean, "num_samples": size, "chance": 0.0}
            scores.append(identity(run) | score)
            for place, value in enumerate(values[run]):
                sample = {"task": task, "doc_id": place, "metric": metric, "value": float(value), "target": "t"}
                samples += [identity(run) | sample, identity(run) | sample | {"metric": "f1", "value": 0.5}]
        write(warehouse, "capability", scores)
        write(warehouse, "capability_samples", samples)
        texts = [{"corpus": "texts", "text_id": i, "nll": nll, "num_tokens": 10} for i, nll in enumerate(nlls)]
        write(warehouse, "perplexity", [identity(run) | text for text in texts])
    return warehouse
