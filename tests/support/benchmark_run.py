"""A small benchmark run of three methods, and what two runs must have in common."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from overedit.flows.config.models import BenchmarkConfig
from overedit.tasks.warehouse.warehouse import Warehouse

ROWS = [
    {
        "case_id": f"c{i}",
        "prompt": f"The capital of Land{i} is",
        "subject": f"Land{i}",
        "target_new": f"Port {i}",
        "target_true": "Oldtown",
        "rephrase_prompts": [f"Land{i} has the capital"],
        "locality": [{"prompt": f"The river of Land{i + 50} is", "answer": "Orm"}],
        "portability": [{"prompt": f"The people of Land{i} are ruled from", "answer": f"Port {i}"}],
    }
    for i in range(12)
]


class FinishedRun(NamedTuple):
    """A run that is complete."""

    folder: Path
    """Its home."""
    config: BenchmarkConfig
    artifacts: dict[str, Any]
    """Kind -> the run's newest artifact of this kind when it had ended; None where there was none."""


def configuration(folder: Path, model: Path, **more: Any) -> dict[str, Any]:
    """The run's configuration, with its home in a folder that gets the data too."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.json").write_text(json.dumps(ROWS))
    (folder / "texts.txt").write_text("The sun is over Land1.\nA river runs to the sea.\n")
    return {
        "name": "r",
        "home": str(folder),
        "model": str(model),
        "dataset": {"name": "file", "path": str(folder / "rows.json")},
        "methods": [
            {"method": "locft_bf", "site": "1.down_proj", "epochs": 3},
            {"method": "ft_m", "site": "1.down_proj", "max_steps": 2},
            {"method": "ultraedit", "sites": ["1.down_proj"], "learning_rate": 1e-3},
        ],
        "edit_counts": [1, 4, 12],
        "turn_size": 4,
        "perplexity": {"corpus": str(folder / "texts.txt")},
        "engine": {"kind": "transformers"},
    } | more


def digests(folder: Path, *parts: str) -> dict[str, str]:
    """Path -> SHA-256 of every file that a run keeps, but for its costs."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for part in parts
        for path in sorted((folder / part).rglob("*"))
        if path.is_file() and path.name != "costs.json"
    }


def checkpoint_digests(folder: Path) -> dict[str, str]:
    """Those of the checkpoints: tensors and records."""
    return {
        path: content
        for path, content in digests(folder, "runs").items()
        if path.endswith((".safetensors", "checkpoint.json"))
    }


def rows_of(folder: Path, table: str) -> list[dict[str, Any]]:
    """All rows of a table of a run's warehouse, of which there must be some."""
    rows = Warehouse(folder / "warehouse").query(f"SELECT * FROM {table} ORDER BY ALL").to_pylist()
    assert rows
    return rows


def numbers(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of a run by table, but for what things cost, where they are, and what each engine of a run has once."""
    found = {}
    for table in ("outcomes", "perplexity", "checkpoints", "diagnostics", "requests", "costs"):
        rows = [row for row in rows_of(folder, table) if not (table == "costs" and _is_of_one_engine(row))]
        for row in rows:
            for name in ("seconds", "ended_at", "peak_memory_bytes", "path", "corpus"):
                row.pop(name, None)
            if row.get("quantity") == "seconds":
                row["value"] = None
        found[table] = sorted(rows, key=str)
    return found


def _is_of_one_engine(cost: dict[str, Any]) -> bool:
    """Its start, or a swap back to the pristine model."""
    return cost["stage"] == "engine_start" or (cost["stage"] == "swap" and cost["edit_count"] == 0)


def server_settings(own: Path | None = None) -> dict[str, str]:
    """Environment of a run with a Prefect server of its own, whose files are in `own`, or with the tests' server."""
    from prefect.settings import PREFECT_API_URL

    if own is None:
        return {"PREFECT_API_URL": PREFECT_API_URL.value()}
    return {"PREFECT_HOME": str(own), "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120"}
