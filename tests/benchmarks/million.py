"""A million edits in constant memory and at constant speed: runs `deployments/benchmarks/million.yaml` and reads it.

Prints, from the warehouse's rows, the peak memory of the edits up to 10,000 against that of those up to 1,000,000, the
median seconds per 1,000 edits (full turns) of the first tenth of the edits against the last tenth, the wall time of the
run, and the retention curve by age. Ends with exit code 1 where a bound is missed. Run by `make million`, or as
`python tests/benchmarks/million.py [--home FOLDER] [--read]`; `--read` reads a run that is complete. The time is of
this call alone: of a run that was stopped and is continued, the rest.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from overedit.tasks.report.formatting import format_rows
from overedit.tasks.warehouse.warehouse import Warehouse

HOUSE = Path(__file__).resolve().parents[2]
MOST_MORE = 0.10
"""Memory and seconds at the end may exceed those at the start by this share."""
MOST_SECONDS = 90 * 60
MEMORY = """
SELECT
    max(peak_memory_bytes) FILTER (WHERE edit_count = 10000) / 2**20 AS early,
    max(peak_memory_bytes) FILTER (WHERE edit_count = 1000000) / 2**20 AS late
FROM cost_per_edit WHERE run = 'million'
"""
SPEED = """
WITH turns AS (
    SELECT first_edit, last_edit, 1000 * value / (last_edit - first_edit + 1) AS seconds
    FROM diagnostics
    WHERE run = 'million' AND quantity = 'seconds'
    QUALIFY last_edit - first_edit = max(last_edit - first_edit) OVER ()
)
SELECT
    median(seconds) FILTER (WHERE last_edit <= 100000) AS early,
    median(seconds) FILTER (WHERE first_edit > 900000) AS late
FROM turns
"""
RETENTION = """
SELECT edit_count, age, round(value, 4) AS value, n, round(low, 4) AS low, round(high, 4) AS high
FROM retention_by_age WHERE run = 'million' AND protocol = 'generated' AND edit_count >= 10000
ORDER BY edit_count, age_low
"""


def compared(warehouse: Warehouse, sql: str, title: str, unit: str) -> bool:
    """Print a figure early and late; whether the late one is within the bound."""
    (row,) = warehouse.query(sql).to_pylist()
    early, late = row["early"], row["late"]
    if early is None or late is None:
        print(f"{title}: the run has not come to its end yet  MISSED")
        return False
    met = bool(late <= (1 + MOST_MORE) * early)
    print(
        f"{title}: {early:,.2f} {unit} early, {late:,.2f} late, {late / early - 1:+.1%}  {'met' if met else 'MISSED'}"
    )
    return met


def run(home: Path) -> bool:
    """Run the benchmark and print how long it took; whether that is within the bound."""
    begun = time.perf_counter()
    start = "from overedit.flows.cli.main import main; main()"
    settings = [str(HOUSE / "deployments/benchmarks/million.yaml"), "--set", f"home={home}"]
    ended = subprocess.run([sys.executable, "-c", start, "run", *settings], check=False, cwd=HOUSE)
    if ended.returncode:
        sys.exit(ended.returncode)  # it has said why
    seconds = time.perf_counter() - begun
    met = seconds <= MOST_SECONDS
    print(f"the whole run: {seconds / 60:.1f} minutes of at most {MOST_SECONDS // 60}  {'met' if met else 'MISSED'}")
    return met


def main() -> int:
    """Run, and print the comparisons; 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=HOUSE, help="the folder of the run's warehouse")
    parser.add_argument("--read", action="store_true", help="read a complete run")
    given = parser.parse_args()
    home = given.home.resolve()
    in_time = given.read or run(home)
    warehouse = Warehouse(home / "warehouse")
    in_memory = compared(warehouse, MEMORY, "peak memory of editing, 10,000 edits against 1,000,000", "MiB")
    at_speed = compared(warehouse, SPEED, "seconds per 1,000 edits, first tenth against last", "s")
    print(format_rows(warehouse.query(RETENTION), "table"))
    return 0 if in_time and in_memory and at_speed else 1


if __name__ == "__main__":
    sys.exit(main())
