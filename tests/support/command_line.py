"""Calls of the command line in this process, and a small configuration that is right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Run = Callable[..., tuple[int, str, str]]
"""(arguments) -> (exit code, standard output, standard error)."""

ROWS = [
    {"case_id": i, "prompt": f"The capital of Land{i} is", "subject": f"Land{i}", "target_new": f"City{i}"}
    for i in range(20)
]


def write_configuration(folder: Path, model: Path) -> dict[str, str]:
    """Write `c.yaml` and its data, `rows.json` -> the names of both, and the model."""
    (folder / "rows.json").write_text(json.dumps(ROWS))
    config: dict[str, Any] = {
        "name": "r",
        "model": str(model),
        "dataset": {"name": "file", "path": "rows.json"},
        "methods": [{"method": "ft_m", "site": "1.down_proj"}],
        "edit_counts": [1, 10],
        "engine": {"kind": "transformers"},
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    return {"config": "c.yaml", "rows": "rows.json", "model": str(model)}
