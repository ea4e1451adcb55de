"""A table's folder is read by pandas, polars and DuckDB as it is, without options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from overedit.tasks.warehouse.tables import TABLES
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.synthetic_run import fill


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Several trajectories and edit counts, a folder each."""
    return fill(tmp_path_factory.mktemp("filled"), cases=6)


def by_pandas(folder: Path) -> list[dict[str, Any]]:
    import pandas

    frame = pandas.read_parquet(folder)
    return list(frame.astype(object).where(frame.notna(), None).to_dict("records"))


def by_polars(folder: Path) -> list[dict[str, Any]]:
    import polars

    return polars.read_parquet(folder).to_dicts()


def by_polars_lazily(folder: Path) -> list[dict[str, Any]]:
    import polars

    return polars.scan_parquet(f"{folder}/**/*.parquet").collect().to_dicts()


def by_duckdb(folder: Path) -> list[dict[str, Any]]:
    with duckdb.connect(":memory:") as connection:
        return list(connection.sql(f"FROM '{folder}/**/*.parquet'").to_arrow_table().to_pylist())


@pytest.mark.parametrize("table", ["outcomes", "checkpoints", "runs"])
@pytest.mark.parametrize("read", [by_pandas, by_polars, by_polars_lazily, by_duckdb])
def test_a_folder_is_the_table(filled: Warehouse, table: str, read: Callable[[Path], list[dict[str, Any]]]) -> None:
    found = read(Path(filled.root) / table)
    wanted = filled.rows(table)
    assert len(found) == len(wanted) > 2
    assert list(found[0]) == TABLES[table].names
    names = ("trajectory", "order_seed", "edit_count", "run", "method")
    key = [name for name in (*names, "probe", "protocol", "position", "score", "update_norm") if name in found[0]]
    pick = lambda rows: sorted(tuple(str(row[name]) for name in key) for row in rows)  # noqa: E731
    assert pick(found) == pick(wanted)
