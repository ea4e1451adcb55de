"""Several warehouses in one query: each has its own rows, and the promises of a single one hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from overedit.tasks.warehouse.attached import named_folders
from overedit.tasks.warehouse.tables import TABLES
from overedit.tasks.warehouse.views import view_names
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.perplexity_rows import PARTITION, rows
from tests.support.synthetic_run import fill


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return fill(tmp_path_factory.mktemp("mine") / "warehouse", cases=4, by_count=False)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Warehouse]:
    """One with other rows, and one in an object store."""
    local = fill(tmp_path_factory.mktemp("[other]*") / "warehouse", cases=4, methods=2, by_count=False)
    store = Warehouse("memory://attached")
    store.write("perplexity", rows(5), partition=PARTITION, key="k")
    return {"nightly": local, "store": store}


def test_each_view_reads_the_rows_of_its_own_warehouse(mine: Warehouse, others: Mapping[str, Warehouse]) -> None:
    for name in ("leaderboard", "outcome_sums", "trajectories", "perplexity"):
        counts = {
            schema: other.query(f"SELECT count(*) AS n FROM {name}")["n"][0].as_py()
            for schema, other in {"mine": mine, **others}.items()
        }
        parts = ", ".join(
            f"(SELECT count(*) FROM {'' if schema == 'mine' else f'{schema}.'}{name}) AS {schema}" for schema in counts
        )
        assert mine.query(f"SELECT {parts}", attach=others).to_pylist() == [counts], name
    assert counts["mine"] != counts["nightly"] != counts["store"]


def test_every_table_and_view_can_be_asked(mine: Warehouse, others: Mapping[str, Warehouse]) -> None:
    with mine.connect(attach=others) as connection:
        shown = connection.sql("SHOW ALL TABLES").fetchall()
    columns = {(schema, name): names for _, schema, name, names, *_ in shown}
    for name in [*TABLES, *view_names()]:
        assert columns["main", name] == columns["nightly", name] == columns["store", name], name


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT * FROM perplexity, nightly.leaderbord", "those of nightly are nightly.leaderboard and so on"),
        ("CREATE TABLE nightly.t AS FROM perplexity", "one SELECT statement .* is accepted, not CREATE"),
        ("FROM perplexity; DROP SCHEMA nightly CASCADE", "one SELECT statement"),
        ("SELECT * FROM perplexity, read_csv('/etc/passwd')", "Permission Error"),
        ("SELECT * FROM perplexity, read_text('{folder}/../secret.txt')", "Permission Error"),
        ("ATTACH '{folder}/perplexity/x.duckdb' AS x", "one SELECT statement"),
    ],
)
def test_nothing_else_is_read_and_nothing_is_written(
    others: Mapping[str, Warehouse], tmp_path: Path, sql: str, said: str
) -> None:
    folder = tmp_path / "warehouse"
    nightly = Warehouse(folder)
    nightly.write("perplexity", rows(1), partition=PARTITION, key="k")
    (tmp_path / "secret.txt").write_text("secret")
    with pytest.raises(ValueError, match=said):
        others["store"].query(sql.format(folder=folder), attach={"nightly": nightly})


def test_two_of_one_store(others: Mapping[str, Warehouse]) -> None:
    store = others["store"]
    found = store.query("SELECT count(*) AS n FROM perplexity, again.perplexity", attach={"again": store})
    assert found.to_pylist() == [{"n": 25}]


def test_folders_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["results/last-night/", "2026=x/y", "new=../a=b", "/data/2026"]
    names = ["last_night", "y", "new", "_2026"]
    assert list(named_folders(given)) == names
    assert named_folders(["new=../a=b"]) == {"new": Path("../a=b")}
    assert list(named_folders(["."])) == [tmp_path.name.replace("-", "_")]
    with pytest.raises(ValueError, match="attach: two folders are named 'x'; name one of them: --attach NAME=b/x"):
        named_folders(["a/x", "b/x"])


@pytest.mark.parametrize("name", ["my results", "runs", "Leaderboard", "main", "temp", "", "a.b", 'a"b'])
def test_names_that_cannot_be(mine: Warehouse, others: Mapping[str, Warehouse], name: str) -> None:
    with pytest.raises(ValueError, match=r"attach: .* cannot name a warehouse; accepted: letters, digits"):
        mine.query("SELECT 1", attach={name: others["nightly"]})
    with pytest.raises(ValueError, match="differ in case alone"):
        mine.query("SELECT 1", attach={"a": others["nightly"], "A": others["store"]})
