"""What a scan has found: the hard cases as a dataset of their own, and a line that says how many they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from overedit.editing.storage.atomic import replace_file
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.runs.run import TrajectoryPoint
from overedit.tasks.warehouse.views import literal


def save_hard_cases(place: TrajectoryPoint, requests: RequestStore) -> Path | None:
    """Write a scan's hard cases, the worst first, as whole requests, one JSON object a line.

    `dataset: {name: file, path: ...}` reads them back as they are. A file of an earlier scan of the same name is
    replaced, or goes.

    Args:
        place: Of the scan's rows.
        requests: Those that were scanned, in their order.

    Returns:
        Where they lie: `<home>/datasets/<run>-<trajectory>-hard.jsonl`; None where no case is hard.
    """
    path = place.run.home / "datasets" / f"{place.run.name}-{place.trajectory}-hard.jsonl"
    rows = _rows(place, "position", "hard_cases", "ORDER BY perplexity DESC, position")
    if not rows:
        path.unlink(missing_ok=True)
        return None
    with replace_file(path) as stream:
        stream.writelines(requests[row["position"] - 1].model_dump_json().encode() + b"\n" for row in rows)
    return path


def scan_line(place: TrajectoryPoint, path: Path | None) -> str:
    """What came of a scan, in a sentence or two.

    Args:
        place: Of its rows.
        path: Where its hard cases lie.
    """
    (found,) = _rows(place, "*", "scan_summary", "AND subject = 'all'")
    broken = f"{found['num_hard']:,} of {found['n']:,} edits break the model, each on its own"
    share = (
        ""
        if found["hard_share"] is None
        else f" ({found['hard_share']:.1%}; {found['low']:.1%} to {found['high']:.1%})"
    )
    parts = [f"{found['label']}: {broken}{share}"]
    if found["n"]:
        ratio = f"perplexity becomes {found['median_ratio']:.4g} times the pristine {found['base_perplexity']:.4g}"
        parts.append(f"{ratio} (median), {found['largest_ratio']:.4g} times at most")
        parts.append(f"{found['seconds_per_edit']:.2f} s an edit")
    if found["num_failed"]:
        parts.append(f"{found['num_failed']:,} edits could not be made")
    if path is not None:
        parts.append(f"hard cases: {path}")
    return "; ".join(parts)


def _rows(place: TrajectoryPoint, columns: str, view: str, rest: str) -> list[dict[str, Any]]:
    where = f"run = {literal(place.run.name)} AND trajectory = {literal(place.trajectory)}"
    sql = f"SELECT {columns} FROM {view} WHERE {where} AND order_seed = {place.order_seed} {rest}"
    return list(place.run.warehouse.query(sql).to_pylist())
