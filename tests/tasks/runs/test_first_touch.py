"""Queries and the status of a home are answered at once: they import none of the libraries that take seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY
from tests.support.synthetic_run import fill

HEAVY = ("torch", "transformers", "prefect", "vllm", "lm_eval", "matplotlib", "scipy", "datasets")
QUERY = """
from overedit.tasks.report.formatting import format_rows
from overedit.tasks.warehouse.warehouse import Warehouse
print(format_rows(Warehouse({root!r}).query({sql!r}), "csv"))
"""
STATUS = """
from pathlib import Path
from overedit.tasks.runs.status import status_table
print(status_table(Path({home!r})).row_count)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the rows of a run and an empty folder of it."""
    home = tmp_path_factory.mktemp("home")
    fill(home / "warehouse", cases=2, by_count=False)
    (home / "runs").mkdir()
    return home


def output_without_heavy_modules(code: str) -> str:
    check = f"\nimport sys\nassert not sys.modules.keys() & set({HEAVY!r}), sys.modules.keys() & set({HEAVY!r})"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code + check], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("sql", "answer"),
    [("SELECT 1 AS one", "one\n1\n"), ("SELECT max(edit_count) AS most FROM leaderboard", "most\n1000\n")],
)
def test_a_query_imports_no_heavy_library(home: Path, sql: str, answer: str) -> None:
    assert output_without_heavy_modules(QUERY.format(root=str(home / "warehouse"), sql=sql)) == answer


def test_the_status_imports_no_heavy_library(home: Path) -> None:
    assert output_without_heavy_modules(STATUS.format(home=str(home))) == "4\n"
