"""What a run has made, without what it took, and how two runs differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from overedit.tasks.warehouse.tables import RESULTS

TIMES = ("seconds", "started_at", "ended_at", "peak_memory_bytes")
"""Columns that no two runs agree in."""


class Made(NamedTuple):
    """The lasting content of a home."""

    files: dict[str, bytes]
    """Checkpoints and the run's configuration: path -> content."""
    rows: dict[str, Counter[str]]
    """Table -> each row, and how often it is there."""
    temporary: tuple[str, ...]
    """What a writer should have removed."""


def made(home: Path) -> Made:
    """Read everything below a home, with no help of the product's own reading."""
    paths = [path for path in sorted(home.rglob("*")) if path.is_file()]
    kept = [path for path in paths if path.is_relative_to(home / "runs") and path.name != "costs.json"]
    return Made(
        files={str(path.relative_to(home)): path.read_bytes() for path in kept if not is_temporary(path)},
        rows={table: Counter(map(repr, _rows(home / "warehouse" / table))) for table in RESULTS},
        temporary=tuple(str(path.relative_to(home)) for path in sorted(home.rglob("*")) if is_temporary(path)),
    )


def is_temporary(path: Path) -> bool:
    """Whether a name says that its writer was not done."""
    return path.name.startswith(".") or path.suffix == ".tmp"


def differences(found: Made, wanted: Made) -> list[str]:
    """What differs, in words; none where nothing does."""
    names = sorted(found.files.keys() | wanted.files.keys())
    said = [f"{name}: {_how(name, found, wanted)}" for name in names if _how(name, found, wanted)]
    for table in RESULTS:
        lost, doubled = wanted.rows[table] - found.rows[table], found.rows[table] - wanted.rows[table]
        said += [f"{table}: lost {row[:300]}" for row in list(lost)[:3]]
        said += [f"{table}: not in the undisturbed run {row[:300]}" for row in list(doubled)[:3]]
    return said + [f"left behind: {name}" for name in found.temporary]


def _how(name: str, found: Made, wanted: Made) -> str | None:
    if name not in found.files:
        return "lost"
    if name not in wanted.files:
        return "not in the undisturbed run"
    return None if found.files[name] == wanted.files[name] else "other bytes"


def _rows(folder: Path) -> list[dict[str, Any]]:
    """A table's rows but for times, and for the starts of the engine, of which an interrupted run has more."""
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.rglob("*.parquet")):
        if is_temporary(path):
            continue
        with pa.OSFile(str(path)) as stream:
            rows += pq.ParquetFile(stream).read(use_threads=False).to_pylist()
    return [
        {name: value for name, value in row.items() if name not in _times(row)}
        for row in rows
        if row.get("stage") != "engine_start"
    ]


def _times(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (*TIMES, "value") if row.get("quantity") == "seconds" else TIMES
