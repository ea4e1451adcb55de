"""The views over 10 and 100 million outcome rows against their bounds, and a question to many small files.

The rows are made up, with texts, token ids and likelihoods as an evaluation has them, and written by the warehouse
itself: one file a checkpoint, 10,000 cases of 7 probes under 3 protocols. What the views answer is held against what
the rows were made of. Times are wall seconds of whole queries on two cores, from opening the warehouse to the last row,
the best of three (the page cache is warm); beside them the same sums from the rows, which is what files written before
there were sums take, and papers' presets, which score every question anew. Nothing stays on the disk.
Run as `python tests/benchmarks/bench_warehouse.py [--rows 10e6 100e6] [--files 1000] [--scratch FOLDER]`.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from overedit.tasks.warehouse.tables import TABLES
from overedit.tasks.warehouse.warehouse import Warehouse

PROBES = ["edit", "rephrase", "rephrase", "locality", "locality", "locality", "portability"]
INDEX = [0, 0, 1, 0, 1, 2, 0]
PROTOCOLS = ["generated", "teacher_forced", "probability"]
CASES = 10_000
"""GenerationSettings at each checkpoint."""
ROWS_A_PLACE = CASES * len(PROBES) * len(PROTOCOLS)
COUNTS = [1, 10, 100, 1_000, *range(2_000, 11_000, 1_000)]
BYTES_A_ROW = 60
"""Free disk asked for; the rows take about half of it."""
BOUNDS = {10_000_000: 1.0, 100_000_000: 5.0}
"""Rows -> seconds allowed."""
BY_QUESTION = 10_000_000
"""Rows up to which the view that scores every question anew is asked."""
VIEWS = ("reliability_by_edit_count", "collapse_point")
MADE = """
    SELECT n, value FROM reliability_by_edit_count
    WHERE measure = 'reliability' AND protocol = 'generated' AND edit_count > 0"""
BY_ROWS = """
    SELECT run, trajectory, order_seed, edit_count, probe, protocol, avg(score), count(score), avg(agreement),
        count(agreement), count(*) FILTER (trim(output) = '')
    FROM outcomes GROUP BY ALL"""


class TrajectoryPoint(NamedTuple):
    """One checkpoint's file."""

    run: str
    trajectory: str
    order_seed: int
    edit_count: int

    @property
    def identity(self) -> dict[str, Any]:
        """The identity columns of its rows."""
        method = "none" if self.trajectory == "base" else self.trajectory
        return self._asdict() | {"model": "meta-llama/Llama-3.1-8B-Instruct", "method": method, "dataset": "zsre"}


def places() -> Iterator[TrajectoryPoint]:
    """Runs of four methods, one after another, without end."""
    for number in range(10**9):
        run = f"nightly-{number:04d}"
        yield TrajectoryPoint(run, "base", 0, 0)
        for trajectory in ("memit", "alphaedit", "ultraedit", "locft_bf"):
            for count in COUNTS:
                yield TrajectoryPoint(run, trajectory, 0, count)


def texts(generator: np.random.Generator, number: int, words: int) -> pa.Array:
    """Sentences of so many words out of 2,000."""
    syllables = ["ar", "ben", "cor", "dal", "el", "fen", "gar", "hol", "in", "jor", "kel", "lo", "mar", "nor", "os"]
    vocabulary = pa.array([f"{a}{b}{c}" for a in syllables for b in syllables for c in syllables[:9]])
    chosen = [vocabulary.take(pa.array(generator.integers(0, len(vocabulary), number))) for _ in range(words)]
    return pc.binary_join_element_wise(*chosen, " ")


def ids(generator: np.random.Generator, number: int) -> pa.ListArray:
    """One to four tokens each."""
    ends = np.concatenate([[0], np.cumsum(generator.integers(1, 5, number))]).astype(np.int32)
    return pa.ListArray.from_arrays(ends, pa.array(generator.integers(0, 128_000, ends[-1]), pa.int32()))


def template(share: float, seed: int) -> pa.Table:
    """The rows of a checkpoint, but for the identity columns, of which this share is right."""
    generator = np.random.default_rng(seed)
    number = ROWS_A_PLACE
    case, place = np.divmod(np.arange(number), number // CASES)
    probe, protocol = np.divmod(place, len(PROTOCOLS))
    questions = pa.array(case * len(PROBES) + probe)
    generated, forced, probability = (pa.array(protocol == i) for i in range(3))
    unscored = pa.array((protocol == 2) & (probe == 6) | (generator.random(number) < 0.01))
    right = generator.random(number) < share
    target = texts(generator, CASES * len(PROBES), 2).take(questions)
    ramble = texts(generator, number, 12)
    wrong = pc.if_else(pa.array(generator.random(number) < 0.15), ramble, texts(generator, number, 1))
    target_ids = ids(generator, CASES * len(PROBES)).take(questions)
    nll = (generator.gamma(2.0, 2.0, number)).astype(np.float32).astype(np.float64)
    nothing = pa.scalar(None)
    no_other = "score: {0}; agreement: {0}".format("the dataset gives no other answer to compare with")
    cases = pa.array(case).cast(pa.string())
    overwritten = pc.binary_join_element_wise("score: overwritten by case ", cases, "; agreement: none", "")
    columns = {
        "position": pa.array(case + 1),
        "case_id": pc.binary_join_element_wise("case", cases, "-"),
        "probe": pa.array(PROBES).take(pa.array(probe)),
        "probe_index": pa.array(INDEX, pa.int32()).take(pa.array(probe)),
        "protocol": pa.array(PROTOCOLS).take(pa.array(protocol)),
        "prompt": texts(generator, CASES * len(PROBES), 7).take(questions),
        "target": target,
        "output": pc.if_else(generated, pc.if_else(pa.array(right), target, wrong), nothing),
        "num_tokens": pa.array(generator.integers(1, 33, number), pa.int32()),
        "finish_reason": pc.if_else(generated, "stop", nothing),
        "stop": pc.if_else(generated, pa.scalar([".", "\n"]), nothing),
        "max_tokens": pc.if_else(generated, pa.scalar(32, pa.int32()), nothing),
        "greedy_ids": pc.if_else(forced, pc.if_else(pa.array(right), target_ids, ids(generator, number)), nothing),
        "target_ids": pc.if_else(forced, target_ids, nothing),
        "nll": pc.if_else(probability, pa.array(nll), nothing),
        "other": pc.if_else(probability, texts(generator, CASES * len(PROBES), 2).take(questions), nothing),
        "nll_other": pc.if_else(probability, pa.array(nll[::-1]), nothing),
        "num_tokens_other": pc.if_else(probability, pa.array(generator.integers(1, 5, number), pa.int32()), nothing),
        "score": pc.if_else(unscored, nothing, pa.array(right.astype(np.float64))),
        "agreement": pc.if_else(unscored, nothing, pa.array(right.astype(np.float64))),
        "reason": pc.if_else(unscored, pc.if_else(probability, no_other, overwritten), nothing),
    }
    return pa.table(columns)


def fill(root: Path, num_rows: int, a_place: int = ROWS_A_PLACE) -> list[tuple[int, float]]:
    """Write so many rows or a few more.

    Returns:
        Of each edited place, how many generated answers to edit prompts have a score, and their mean.
    """
    templates = [template(share, seed).slice(0, a_place) for seed, share in enumerate((0.02, 0.98, 0.7, 0.2))]
    scores = [
        rows.filter((pc.field("probe") == "edit") & (pc.field("protocol") == "generated"))["score"]
        for rows in templates
    ]
    made = []
    for number, place in enumerate(islice(places(), -(-num_rows // a_place))):
        rows = templates[number % len(templates)]
        for name, value in place.identity.items():
            kind = TABLES["outcomes"].field(name).type
            rows = rows.append_column(name, pa.repeat(pa.scalar(value, kind), rows.num_rows))
        Warehouse(root).write("outcomes", rows, partition=place._asdict(), key="made up")
        if place.edit_count == COUNTS[-1]:
            run = place.identity | {"label": place.trajectory.upper(), "status": "completed"}
            Warehouse(root).write("runs", [run], partition=place._asdict(), key="made up")
        score = scores[number % len(scores)]
        if place.edit_count > 0:
            made.append((len(score) - score.null_count, pc.mean(score).as_py()))
    return made


def seconds(root: Path, sql: str, times: int = 3) -> float:
    """The best of a few, each from opening the warehouse."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        Warehouse(root).query(sql)
        taken.append(time.perf_counter() - begun)
    return min(taken)


def check(root: Path, made: list[tuple[int, float]]) -> None:
    """Hold the views against what the rows were made of."""
    found = Counter((row["n"], round(row["value"], 9)) for row in Warehouse(root).query(MADE).to_pylist())
    assert found == Counter((n, round(mean, 9)) for n, mean in made), "the views do not say what was written"


def measure(num_rows: int, scratch: Path | None) -> bool:
    """Print the figures of so many rows; whether they are within their bound."""
    needed, free = num_rows * BYTES_A_ROW, shutil.disk_usage(scratch or tempfile.gettempdir()).free
    if free < needed:
        raise SystemExit(f"{num_rows:,} rows need {needed / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free")
    bound = BOUNDS.get(num_rows, math.inf)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        root = Path(folder)
        begun = time.perf_counter()
        made = fill(root, num_rows)
        written = time.perf_counter() - begun
        size = sum(path.stat().st_size for path in root.rglob("*.parquet"))
        count = Warehouse(root).query("SELECT count(*) AS n FROM outcomes")["n"][0].as_py()
        print(f"{count:,} rows, {size / 1e6:,.0f} MB, written in {written:.0f} s")
        check(root, made)
        worst = 0.0
        by_rows = seconds(root, BY_ROWS, times=1)
        for view in VIEWS:
            taken = seconds(root, f"SELECT * FROM {view}")
            worst = max(worst, taken)
            print(
                f"  {view:<28}{taken:8.3f} s  {taken / bound:6.1%} of {bound:g} s  {taken / by_rows:6.1%} of from rows"
            )
        print(f"  {'the same sums from the rows':<28}{by_rows:8.3f} s")
        if num_rows <= BY_QUESTION:
            print(f"  {'preset_scores, by question':<28}{seconds(root, 'SELECT * FROM preset_scores', times=1):8.3f} s")
    return worst <= bound


def measure_small_files(num_files: int, scratch: Path | None) -> None:
    """Print how long a question takes that needs every table and every file of outcomes."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        root, a_place = Path(folder), 210
        begun = time.perf_counter()
        fill(root, num_files * a_place, a_place)
        print(f"{num_files:,} files of {a_place} rows, written in {time.perf_counter() - begun:.0f} s")
        for sql in (
            "SELECT 1 FROM leaderboard",
            "SELECT prompt FROM outcomes LIMIT 1",
            "SELECT count(*) FROM outcomes",
        ):
            print(f"  {sql:<40}{seconds(root, sql):8.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, nargs="*", default=[float(number) for number in BOUNDS])
    parser.add_argument("--files", type=int, default=1_000, help="small files; 0 for none")
    parser.add_argument("--scratch", type=Path, help="where the rows are written; else the folder for temporary files")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    are_fast = [measure(int(number), arguments.scratch) for number in arguments.rows]
    if arguments.files:
        measure_small_files(arguments.files, arguments.scratch)
    print("within the bounds" if all(are_fast) else "MISSED: not within the bounds")
    sys.exit(not all(are_fast))


if __name__ == "__main__":
    main()
