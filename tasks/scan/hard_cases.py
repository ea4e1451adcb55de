"""The results of a scan: the hard cases as a dataset, and a summary line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.runs.run import TrajectoryPoint
from overedit.tasks.storage.working_copy import replace_file, shown_path, sync
from overedit.tasks.warehouse.views import literal


def save_hard_cases(point: TrajectoryPoint, requests: RequestStore) -> Path | None:
    """Write a scan's hard cases, the worst first, as requests, one JSON object a line.

    `dataset: {name: file, path: ...}` reads the file. The file of an earlier scan of the same name is replaced, or
    removed if no case is hard.

    Args:
        point: The point of the scan's rows.
        requests: The scanned requests, in their order.

    Returns:
        The file, `<home>/datasets/<run>-<trajectory>-hard.jsonl`; None where no case is hard.
    """
    path = point.run.home / "datasets" / f"{point.run.name}-{point.trajectory}-hard.jsonl"
    rows = _rows(point, "position", "hard_cases", "ORDER BY perplexity DESC, position")
    if not rows:
        path.unlink(missing_ok=True)
        sync(path)
        return None
    with replace_file(path) as stream:
        stream.writelines(requests[row["position"] - 1].model_dump_json().encode() + b"\n" for row in rows)
    return path


def scan_line(point: TrajectoryPoint, path: Path | None) -> str:
    """Summarize a scan in one line.

    Args:
        point: The point of the scan's rows.
        path: The file of its hard cases.
    """
    (found,) = _rows(point, "*", "scan_summary", "AND subject = 'all'")
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
        parts.append(f"hard cases: {shown_path(path)}")
    return "; ".join(parts)


def _rows(point: TrajectoryPoint, columns: str, view: str, rest: str) -> list[dict[str, Any]]:
    where = f"run = {literal(point.run.name)} AND trajectory = {literal(point.trajectory)}"
    sql = f"SELECT {columns} FROM {view} WHERE {where} AND order_seed = {point.order_seed} {rest}"
    return list(point.run.warehouse.query(sql).to_pylist())
