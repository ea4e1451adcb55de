"""The published database in an older DuckDB than the locked one: every view binds, and its rows are the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from overedit.tasks.warehouse.tables import TABLES
from overedit.tasks.warehouse.views import view_names
from tests.support.synthetic_run import fill

OLDEST = "1.4.0"
"""The oldest DuckDB that the documentation promises."""

READ = """
import json, sys
sys.path.insert(0, sys.argv[1])
import duckdb
with duckdb.connect(sys.argv[2], read_only=True) as connection:
    counts = {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in sys.argv[3:]}
print(json.dumps([duckdb.__version__, counts]))
"""


@pytest.fixture(scope="module")
def older_duckdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the older package, from where pip finds packages."""
    folder = tmp_path_factory.mktemp("duckdb")
    command = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), f"duckdb=={OLDEST}"]
    pip = next((found for found in (sys.executable, "python3") if has_pip(found)), None)
    if pip is None or subprocess.run([pip, *command], capture_output=True, check=False).returncode:
        pytest.skip(f"duckdb {OLDEST} cannot be installed here")
    return folder


def has_pip(python: str) -> bool:
    return not subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode


@pytest.mark.network
def test_every_view_answers_as_it_does_in_the_locked_version(tmp_path: Path, older_duckdb: Path) -> None:
    warehouse = fill(tmp_path, cases=5, by_count=False)
    database = warehouse.publish()
    names = [*TABLES, *view_names(), "outcomes_by_instance"]
    process = subprocess.run(
        [sys.executable, "-c", READ, str(older_duckdb), database, *names], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr[-2000:]
    version, counts = json.loads(process.stdout)
    assert version == OLDEST
    with warehouse.connect() as connection:
        expected = {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchall()[0][0] for name in names}
    assert counts == expected
