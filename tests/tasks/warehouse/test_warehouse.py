from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from overedit.tasks.warehouse.layout import stage_path
from overedit.tasks.warehouse.tables import TABLES
from overedit.tasks.warehouse.views import view_names
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.perplexity_rows import IDENTITY, PARTITION, rows


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    path = warehouse.write("perplexity", rows(3), partition=PARTITION, key="k")
    assert Path(path).parent == tmp_path / "perplexity/demo/locft-bf/0/10"
    assert warehouse.rows("perplexity", PARTITION) == rows(3)
    assert warehouse.rows("perplexity", {"edit_count": 10}) == rows(3)
    assert warehouse.rows("perplexity", {"edit_count": 1}) == []
    assert warehouse.rows("outcomes") == []


def test_a_stage_run_twice_leaves_one_file_and_its_last_rows(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    first = warehouse.write("perplexity", rows(3), partition=PARTITION, key="k")
    inode = Path(first).stat().st_ino
    again = warehouse.write("perplexity", rows(2), partition=dict(reversed(PARTITION.items())), key="k")
    assert again == first and Path(first).stat().st_ino != inode
    assert len(files(tmp_path)) == 1
    assert warehouse.query("SELECT count(*) AS n FROM perplexity").to_pylist() == [{"n": 2}]


@pytest.mark.parametrize("is_local", [True, False])
def test_rows_of_another_key_move_to_the_history_and_come_back(tmp_path: Path, is_local: bool) -> None:
    warehouse = Warehouse(tmp_path if is_local else f"memory://{tmp_path.name}-history")

    def current() -> int:
        return warehouse.query("SELECT count(*) AS n FROM perplexity")["n"].to_pylist()[0]

    old = warehouse.write("perplexity", rows(3), partition=PARTITION, key="old")
    new = warehouse.write("perplexity", rows(2), partition=PARTITION, key="new")
    assert old == new and current() == 2
    assert not warehouse.holds("perplexity", PARTITION, "old") and warehouse.holds("perplexity", PARTITION, "new")
    assert not warehouse.reuse("perplexity", PARTITION, "never") and current() == 2
    assert warehouse.reuse("perplexity", PARTITION, "old") and current() == 3
    assert warehouse.reuse("perplexity", PARTITION, "old") and not warehouse.holds("perplexity", PARTITION, "new")
    assert warehouse.reuse("perplexity", PARTITION, "new") and current() == 2

    other = PARTITION | {"edit_count": 11}
    warehouse.write("perplexity", rows(1, edit_count=11), partition=other, key="k")
    assert warehouse.keep_only("demo", {stage_path("perplexity", other, "k")}) == 1
    assert current() == 1 and warehouse.reuse("perplexity", PARTITION, "new") and current() == 3


def test_a_damaged_file_of_the_history_does_not_come_back(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    for key in ("old", "new"):
        warehouse.write("perplexity", rows(2), partition=PARTITION, key=key)
    (kept,) = (tmp_path / "history").rglob("*.parquet")
    kept.write_bytes(kept.read_bytes()[:-9])
    assert not warehouse.reuse("perplexity", PARTITION, "old")
    assert warehouse.holds("perplexity", PARTITION, "new")


def test_files_of_an_older_version_keep_their_rows_and_get_their_new_names(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    path = Path(warehouse.write("perplexity", rows(3), partition=PARTITION, key="k"))
    old = tmp_path / "perplexity/run=demo/trajectory=locft-bf/order_seed=0/edit_count=10"
    old.mkdir(parents=True)
    path.rename(old / path.name)
    count = "SELECT count(*) AS n FROM perplexity"
    assert warehouse.query(count)["n"].to_pylist() == [3] and not warehouse.holds("perplexity", PARTITION, "k")
    warehouse.rename_old_files("demo")
    assert warehouse.query(count)["n"].to_pylist() == [3] and warehouse.holds("perplexity", PARTITION, "k")
    assert path.is_file()


def test_the_rows_of_an_instance_under_its_own_name(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    for number, key in ((3, "old"), (2, "new")):
        warehouse.write("perplexity", rows(number), partition=PARTITION, key=key)
        path = stage_path("perplexity", PARTITION, key)
        file = {"run": "demo", "instance": key, "table_name": "perplexity", "path": path, "file": Path(path).name}
        warehouse.write("instance_files", [file], partition={"run": "demo", "instance": key}, key="k")
    sql = "SELECT run, count(*) AS n FROM perplexity GROUP BY ALL ORDER BY n"
    assert warehouse.query(sql, instances=["demo@old"]).to_pylist() == [
        {"run": "demo", "n": 2},
        {"run": "demo@old", "n": 3},
    ]
    with warehouse.connect(run="demo@old") as connection:
        assert connection.execute("SELECT run, count(*) FROM perplexity GROUP BY ALL").fetchall() == [("demo@old", 3)]
    by_instance = warehouse.query("SELECT instance, count(*) AS n FROM perplexity_by_instance GROUP BY ALL ORDER BY n")
    assert by_instance.to_pylist() == [{"instance": "new", "n": 2}, {"instance": "old", "n": 3}]
    with pytest.raises(ValueError, match="run: 'demo' has no instance 'x'; its instances are new, old"):
        warehouse.query(sql, instances=["demo@x"])


def test_parts_of_a_partition_stand_side_by_side(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    for part in ("a", "b", "a"):
        warehouse.write("perplexity", rows(2), partition=PARTITION, key="k", part=part)
    assert len(files(tmp_path)) == 2
    assert len(warehouse.rows("perplexity", PARTITION)) == 4


def test_holds_knows_the_key_of_the_stage(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    assert not warehouse.holds("perplexity", PARTITION, "k")
    path = warehouse.write("perplexity", [], partition=PARTITION, key="k")
    assert pq.read_schema(path).metadata[b"overedit.key"] == b"k"
    assert warehouse.holds("perplexity", PARTITION, "k")
    assert not warehouse.holds("perplexity", PARTITION, "another")
    assert not warehouse.holds("perplexity", PARTITION | {"edit_count": 1}, "k")
    assert not warehouse.holds("perplexity", PARTITION, "k", part="b")


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    one = Warehouse(tmp_path / "a").write("perplexity", rows(50), partition=PARTITION, key="k")
    other = Warehouse(tmp_path / "b").write("perplexity", rows(50), partition=PARTITION, key="k")
    assert Path(one).read_bytes() == Path(other).read_bytes()
    assert pq.ParquetFile(one).metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"perplexity": 1.0}, "perplexity: unknown column 'perplexity'; its columns are run, trajectory"),
        ({"nll": "much"}, "perplexity.nll: a value is not of type double"),
        ({"text_id": 1.5}, "perplexity.text_id: a value is not of type int64"),
        ({"model": None}, "perplexity.model: 2 rows have no value"),
        ({"edit_count": 11}, "perplexity.edit_count: the partition says 10, but a row says 11"),
    ],
)
def test_wrong_rows_are_refused_and_nothing_is_written(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Warehouse(tmp_path).write("perplexity", rows(2, **change), partition=PARTITION, key="k")
    assert files(tmp_path) == []


def test_unknown_tables_and_partitions_are_refused(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    with pytest.raises(ValueError, match="table: 'outcome' is unknown; the tables are runs, requests"):
        warehouse.write("outcome", [], partition=PARTITION, key="k")
    with pytest.raises(ValueError, match="partition: perplexity has no column 'stage'"):
        warehouse.holds("perplexity", PARTITION | {"stage": "edit"}, "k")


@pytest.mark.parametrize("is_local", [True, False])
def test_records_need_not_all_be_in_memory(tmp_path: Path, is_local: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written some at a time; a bad one far behind leaves what was there."""
    monkeypatch.setattr("overedit.tasks.warehouse.arrow_rows._RECORDS_AT_ONCE", 100)
    warehouse = Warehouse(tmp_path if is_local else f"memory://{tmp_path.name}")
    warehouse.write("perplexity", rows(1), partition=PARTITION, key="k")
    bad = chain(iter(rows(250)), rows(1, nll="many"))
    with pytest.raises(ValueError, match=r"perplexity\.nll"):
        warehouse.write("perplexity", bad, partition=PARTITION, key="k")
    assert warehouse.rows("perplexity") == rows(1)
    alive = most = 0

    def record(row: dict[str, Any]) -> dict[str, Any]:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return Counted(row, done=gone)

    def gone() -> None:
        nonlocal alive
        alive -= 1

    warehouse.write("perplexity", (record(row) for row in rows(250)), partition=PARTITION, key="k")
    assert warehouse.rows("perplexity") == rows(250)
    assert most == 100


class Counted(dict[str, Any]):
    """A record that tells when it is gone."""

    def __init__(self, row: dict[str, Any], done: Callable[[], None]) -> None:
        super().__init__(row)
        self.done = done

    def __del__(self) -> None:
        self.done()


def test_arrow_tables_are_taken_and_missing_columns_are_null(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    content = pa.table({name: [value] for name, value in IDENTITY.items()} | {"num_tokens": pa.array([4], pa.int32())})
    warehouse.write("perplexity", content, partition=PARTITION, key="k")
    (row,) = warehouse.rows("perplexity")
    assert row["num_tokens"] == 4 and row["nll"] is None
    assert warehouse.query("SELECT typeof(num_tokens) AS t FROM perplexity").to_pylist() == [{"t": "BIGINT"}]


def test_every_view_answers_without_a_single_file(tmp_path: Path) -> None:
    with Warehouse(tmp_path / "none").connect() as connection:
        for view in [*TABLES, *view_names()]:
            rows = connection.execute(f"SELECT * FROM {view}").fetchall()
            assert bool(rows) == (view == "preset_measures")  # a list of what is measured, whatever there is
        for table, schema in TABLES.items():
            assert [row[0] for row in connection.execute(f"DESCRIBE {table}").fetchall()] == schema.names
    assert not (tmp_path / "none").exists()


def test_older_files_may_lack_a_column(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    path = Path(warehouse.write("perplexity", rows(1), partition=PARTITION, key="k"))
    pq.write_table(pq.read_table(path).drop_columns(["corpus"]), path)
    warehouse.write("perplexity", rows(1), partition=PARTITION, key="k", part="b")
    assert sorted(row["corpus"] or "" for row in warehouse.rows("perplexity")) == ["", "held out"]
    assert warehouse.query("SELECT count(corpus) AS n FROM perplexity").to_pylist() == [{"n": 1}]
    path.with_name("other.parquet").unlink(missing_ok=True)


def test_names_with_awkward_characters(tmp_path: Path) -> None:
    root = tmp_path / "it's [a] *folder*?"
    partition = PARTITION | {"run": "x/../../y=1", "trajectory": "a'b"}
    warehouse = Warehouse(root)
    warehouse.write("perplexity", rows(2, **partition), partition=partition, key="k")
    assert [Path(name).parts[0] for name in files(tmp_path)] == [root.name]
    assert warehouse.holds("perplexity", partition, "k")
    assert warehouse.query("SELECT DISTINCT run FROM perplexity").to_pylist() == [{"run": "x/../../y=1"}]


def test_a_writer_that_fails_or_is_killed_leaves_nothing_readers_see(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    path = Path(warehouse.write("perplexity", rows(1), partition=PARTITION, key="k"))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    leftover = path.with_name(f".{path.name}~{host}~{dead.pid}~00000000.tmp")
    alive = path.with_name(f".{path.name}~{host}~{os.getpid()}~00000000.tmp")
    elsewhere = path.with_name(f".{path.name}~another-machine~{dead.pid}~00000000.tmp")
    for temporary in (leftover, alive, elsewhere):
        temporary.write_bytes(b"PAR1 half a file")
    assert len(warehouse.rows("perplexity")) == 1
    assert warehouse.query("SELECT count(*) AS n FROM perplexity").to_pylist() == [{"n": 1}]
    warehouse.publish()
    assert not leftover.exists() and alive.exists() and elsewhere.exists()
    os.utime(elsewhere, (0, 0))
    warehouse.publish()
    assert not elsewhere.exists()


def test_many_writers_and_readers_need_no_lock(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    warehouse.write("perplexity", rows(20), partition=PARTITION, key="k")
    wrong: list[Any] = []

    def write() -> None:
        for _ in range(20):
            warehouse.write("perplexity", rows(20), partition=PARTITION, key="k")

    def read() -> None:
        for _ in range(20):
            found = len(warehouse.rows("perplexity"))
            if found != 20:
                wrong.append(found)

    threads = [threading.Thread(target=target) for target in (write, write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and len(files(tmp_path)) == 1


def test_the_published_database_holds_views_alone_and_takes_concurrent_readers(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    path = warehouse.publish()
    warehouse.write("perplexity", rows(3), partition=PARTITION, key="k")
    assert warehouse.publish() == path == str(tmp_path / "warehouse.duckdb")
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM perplexity").fetchone() == (3,)
        assert connection.execute("SELECT count(*) FROM duckdb_tables()").fetchone() == (0,)
        warehouse.publish()
        assert warehouse.query("SELECT count(*) AS n FROM perplexity").to_pylist() == [{"n": 3}]


def test_a_moved_or_copied_warehouse_answers_for_itself(tmp_path: Path) -> None:
    """Also the database file: its views read the files beside it, not those where it was written."""
    here, there = tmp_path / "here", tmp_path / "the [other] place"
    Warehouse(here).write("perplexity", rows(3), partition=PARTITION, key="k")
    Warehouse(here).publish()
    shutil.copytree(here, there)
    Warehouse(here).write("perplexity", rows(2), partition=PARTITION, key="k")
    moved = Warehouse(there)
    assert moved.holds("perplexity", PARTITION, "k")
    assert moved.query("SELECT sum(nll) AS s FROM perplexity").to_pylist() == [{"s": 4.5}]
    count = "SELECT count(*) FROM perplexity"
    for folder, number in ((here, 2), (there, 3)):
        with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
            assert connection.execute(count).fetchone() == (number,)
    shutil.rmtree(here)
    with duckdb.connect(str(there / "warehouse.duckdb"), read_only=True) as connection:
        assert connection.execute(count).fetchone() == (3,)
    with duckdb.connect() as connection:  # attached to another database, a session says where the files are
        connection.execute(f"SET VARIABLE warehouse = '{there}'")
        connection.execute(f"ATTACH '{there / 'warehouse.duckdb'}' AS other (READ_ONLY)")
        assert connection.execute("SELECT count(*) FROM other.perplexity").fetchone() == (3,)


def test_a_relative_root_does_not_follow_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    warehouse = Warehouse("warehouse")
    monkeypatch.chdir("/")
    warehouse.write("perplexity", rows(1), partition=PARTITION, key="k")
    assert (tmp_path / "warehouse").is_dir()


def test_an_object_store_by_url() -> None:
    warehouse = Warehouse("memory://overedit-test/warehouse")
    path = warehouse.write("perplexity", rows(3), partition=PARTITION, key="k")
    assert path.startswith("memory:///overedit-test/warehouse/perplexity/demo/")
    assert warehouse.holds("perplexity", PARTITION, "k")
    assert warehouse.rows("perplexity", PARTITION) == rows(3)
    assert warehouse.query("SELECT count(*) AS n FROM perplexity").to_pylist() == [{"n": 3}]
    assert warehouse.publish() == "memory:///overedit-test/warehouse/warehouse.duckdb"


@pytest.fixture
def filled(tmp_path: Path) -> Warehouse:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    warehouse = Warehouse(tmp_path / "warehouse")
    warehouse.write("perplexity", rows(3), partition=PARTITION, key="k")
    return warehouse


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sum(nll) FROM perplexity",
        "WITH t AS (SELECT 1 AS a) SELECT a FROM t; -- the end",
        "FROM perplexity LIMIT 1",
        "DESCRIBE perplexity",
        "SHOW TABLES",
        "SUMMARIZE perplexity;",
        "SELECT 'it''s; fine' AS copy",
    ],
)
def test_sql_that_reads_is_answered(filled: Warehouse, sql: str) -> None:
    assert filled.query(sql).num_rows >= 1


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELECT 1; SELECT 2",
        "DROP VIEW perplexity",
        "CREATE TABLE t (a INT)",
        "COPY perplexity TO '{root}/stolen.csv'",
        "COPY perplexity TO '{outside}/stolen.csv'",
        "WITH x AS (COPY perplexity TO '{root}/stolen.csv') SELECT * FROM x",
        "EXPLAIN ANALYZE COPY perplexity TO '{root}/stolen.csv'",
        "EXPORT DATABASE '{root}/stolen'",
        "ATTACH '{root}/stolen.db'",
        "SET enable_external_access = true",
        "PRAGMA enable_profiling",
        "INSTALL httpfs",
        "LOAD httpfs",
        "CALL enable_logging(storage='file', storage_path='{root}/stolen')",
        "SELECT * FROM enable_logging(storage='file', storage_path='{root}/stolen')",
        "SELECT * FROM read_csv('{outside}/secret.csv')",
        "SELECT * FROM '{outside}/secret.csv'",
        "SELECT * FROM read_text('{root}/../secret.csv')",
        "SELECT * FROM glob('{outside}/*')",
        "SELECT getenv('HOME')",
        "SELECT * FROM rows",
        "SELECT * FROM filled",
    ],
)
def test_sql_that_writes_or_reads_elsewhere_is_refused(filled: Warehouse, tmp_path: Path, sql: str) -> None:
    before = files(tmp_path)
    with pytest.raises(ValueError, match="sql: "):
        filled.query(sql.format(root=filled.root, outside=tmp_path))
    assert files(tmp_path) == before


def test_sql_errors_say_what_there_is(filled: Warehouse) -> None:
    with pytest.raises(
        ValueError, match=r"outcome does not exist.*tables and views are: runs, .*outcomes.*leaderboard"
    ):
        filled.query("SELECT * FROM outcome")
    with pytest.raises(ValueError, match=r'sql: .*"nil" not found'):
        filled.query("SELECT nil FROM perplexity")
    with pytest.raises(ValueError, match="sql: Parser Error: syntax error at or near"):
        filled.query("SELEC 1")
    with pytest.raises(ValueError, match=r"one SELECT statement .* is accepted, not SELECT, SELECT"):
        filled.query("SELECT 1; SELECT 2")


def test_a_connection_can_show_one_run_alone(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path)
    for run, number in (("demo", 3), ("it's another", 2)):
        partition = PARTITION | {"run": run}
        warehouse.write("perplexity", rows(number, **partition), partition=partition, key="k")
    for run, number in (("demo", 3), ("it's another", 2), ("none", 0)):
        with warehouse.connect(run=run) as connection:
            assert connection.execute("SELECT count(*) FROM perplexity").fetchall() == [(number,)]
            assert connection.execute("SELECT sum(n) FROM perplexity_by_edit_count").fetchall() == [(number or None,)]
