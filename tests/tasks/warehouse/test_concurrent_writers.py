"""Eight processes fill one warehouse with 2,000 files while a ninth, this one, reads without a pause.

Most places are one writer's own; some are written by all of them, again and again, each time with another number of
rows that carry another value. A file that was read in part, twice or mixed with another shows as rows that do not
agree with one another.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from overedit.tasks.warehouse.parquet_checksum import is_whole
from overedit.tasks.warehouse.warehouse import Warehouse

WRITERS = 8
FILES = 2_000
SHARED = 40
"""Places that every writer writes, of the table `perplexity`; and as many of `outcomes`."""
OWN = (FILES - 2 * SHARED) // WRITERS
TURNS = 200
"""Every so many of its own files a writer begins with the shared ones anew."""

TrajectoryPoint = tuple[str, int]

WHOLE = """
    SELECT trajectory, edit_count, count(*) AS n, any_value(num_tokens) AS wanted, count(DISTINCT nll) AS values,
        count(DISTINCT text_id) AS texts
    FROM perplexity GROUP BY ALL"""
SUMMED = "SELECT edit_count, n, value FROM reliability_by_edit_count"


def place(trajectory: str, edit_count: int) -> dict[str, Any]:
    run = "shared" if trajectory == "shared" else "own"
    return {"run": run, "trajectory": trajectory, "order_seed": 0, "edit_count": edit_count}


def put(warehouse: Warehouse, trajectory: str, edit_count: int, version: int) -> None:
    """As many texts as the version says, each with the number of them and the version."""
    where = place(trajectory, edit_count)
    row = where | {"model": "m", "method": "x", "dataset": "d", "corpus": "c", "num_tokens": version, "nll": version}
    warehouse.write("perplexity", [row | {"text_id": i} for i in range(version)], partition=where, key=str(version))


def put_outcomes(warehouse: Warehouse, edit_count: int, version: int) -> None:
    """As many outcomes as the version says, all right where it is even, else all wrong."""
    where = place("shared", edit_count)
    row = where | {"model": "m", "method": "x", "dataset": "d", "case_id": "1", "position": 1, "probe": "edit"}
    row |= {"protocol": "generated", "score": float(version % 2 == 0)}
    warehouse.write("outcomes", [row] * version, partition=where, key=str(version))


def write_files(root: Path, writer: int) -> None:
    warehouse = Warehouse(root)
    for number in range(OWN):
        put(warehouse, f"own-{writer}", number, 1 + number % 3)
        if number % TURNS < SHARED:
            put(warehouse, "shared", number % TURNS, 1 + (number + writer) % 5)
        if number % TURNS == writer:  # each writer its part of them, the last two by two writers
            for count in range(writer * 5 % SHARED, writer * 5 % SHARED + 7):
                put_outcomes(warehouse, count % SHARED, 1 + (number + count) % 4)


def read(warehouse: Warehouse) -> tuple[set[TrajectoryPoint], set[TrajectoryPoint]]:
    """The places seen in each table, after a look at whether they are whole."""
    seen = set()
    for row in warehouse.query(WHOLE).to_pylist():
        assert row["n"] == row["wanted"] == row["texts"] and row["values"] == 1, f"torn, lost or doubled: {row}"
        seen.add((row["trajectory"], row["edit_count"]))
    summed = set()
    for row in warehouse.query(SUMMED).to_pylist():
        assert row["value"] == float(row["n"] % 2 == 0), f"sums of no version: {row}"
        summed.add(("shared", row["edit_count"]))
    found: dict[int, list[int]] = {}
    for row in warehouse.rows("perplexity", {"run": "shared"}):
        found.setdefault(row["edit_count"], []).append(row["num_tokens"])
    assert all(set(tokens) == {len(tokens)} for tokens in found.values()), found
    return seen, summed


@pytest.mark.slow
@pytest.mark.long
def test_eight_writers_and_a_reader_lose_and_double_nothing(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=write_files, args=(tmp_path, writer)) for writer in range(WRITERS)]
    for process in writers:
        process.start()
    before: tuple[set[TrajectoryPoint], set[TrajectoryPoint]] = (set(), set())
    num_reads = 0
    while any(process.is_alive() for process in writers):
        seen = read(Warehouse(tmp_path))
        assert all(old <= new for old, new in zip(before, seen, strict=True)), "rows that were there are gone"
        before = seen
        num_reads += 1
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0] * WRITERS
    own = {(f"own-{writer}", number) for writer in range(WRITERS) for number in range(OWN)}
    shared = {("shared", number) for number in range(SHARED)}
    assert read(Warehouse(tmp_path)) == (own | shared, shared)
    kept = list((tmp_path / "history").rglob("*.parquet"))
    assert kept and all(is_whole(path) for path in kept), "replaced rows are in the history"
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path not in kept]
    assert len(files) == FILES == len(own) + 2 * len(shared)
    assert {path.suffix for path in files} == {".parquet"}
    assert num_reads > 1
