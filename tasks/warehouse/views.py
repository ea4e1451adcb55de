"""The views of the warehouse: one per table, over its files, and one per file of `sql/views/`.

A view that is named after a table reads the current rows. With `_by_instance` after its name it has the rows of every
instance of every run, and the column `instance`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from overedit.tasks.warehouse.layout import KEY_DIGITS
from overedit.tasks.warehouse.outcome_sums import SCHEMA as SUMS_SCHEMA
from overedit.tasks.warehouse.outcome_sums import sums_view
from overedit.tasks.warehouse.tables import RESULTS, TABLES

_SQL = Path(__file__).parent / "sql"
_MACROS = ("common", "statistics", "text", "pristine")
_SUMS = "outcome_sums"
_BY_INSTANCE = "_by_instance"
_TOO_LONG = ("preset_outcomes",)  # for a table in memory: it has a row per question, like `outcomes`
_READING = {"from", "table", "show", "describe", "summarize"}  # words by which a query may read or list any view


def view_names() -> list[str]:
    """The names of the query views, sorted."""
    return sorted(path.stem for path in (_SQL / "views").glob("*.sql"))


def view_sql(name: str) -> str:
    """The SQL of a view or of a file of macros, with the comment that describes it."""
    return (_SQL / ("macros" if name in _MACROS else "views") / f"{name}.sql").read_text()


def query_sql(name: str) -> str:
    """The SQL of a query of a report or a comparison, e.g. `report/cases`, with its leading comment."""
    return (_SQL / f"{name}.sql").read_text()


class Files(NamedTuple):
    """Parquet files of one table."""

    paths: str
    """SQL for a glob or a list of paths."""
    run: str | None = None
    """The name that the views give to the run of their rows; None for the stored one."""


def create_views(
    connection: duckdb.DuckDBPyConnection,
    files: Mapping[str, Sequence[Files]],
    *,
    every: Mapping[str, Sequence[Files]] | None = None,
    run: str | None = None,
    computed: Collection[str] = (),
    wanted: Collection[str] | None = None,
) -> None:
    """Create the macros, the tables' views, the sums of outcomes and the query views.

    Args:
        connection: An empty database.
        files: Table -> its files; an empty list makes the view empty.
        every: Table -> its files with those of the history, for the views of all instances.
        run: The run that the views are restricted to; None for all runs.
        computed: Query views that are computed now and stored as tables, except one that is as long as its files.
        wanted: Tables and query views to create, including all that they need; None for every one.
    """
    where = "" if run is None else f" WHERE run = {literal(run)}"
    for name in _MACROS:
        connection.execute(view_sql(name))
    queries = {table: f"FROM ({_table_view(TABLES[table], files[table])}){where}" for table in files}
    made = _views_of_files(files, every or files, where)
    queries |= {name: made.get(name) or view_sql(name) for name in TopologicalSorter(_dependencies()).static_order()}
    if wanted is not None:
        queries = {name: sql for name, sql in queries.items() if name in wanted}
    if not computed:
        _create_on_empty_tables(connection, queries)
        return
    for name, sql in queries.items():
        is_kept = name in computed and name not in {*_TOO_LONG, *made, *TABLES}
        connection.execute(f"CREATE {'TABLE' if is_kept else 'VIEW'} {name} AS {sql}")


def _create_on_empty_tables(connection: duckdb.DuckDBPyConnection, queries: Mapping[str, str]) -> None:
    """Create views, given each after those that it reads.

    DuckDB binds a view's query when the view is created, and all views below it again. So each is bound to empty tables
    that have the columns of the views it reads, which take their place afterwards, from the top down.
    """
    for name, sql in queries.items():
        if name in TABLES:
            columns = [(field.name, _sql_type(field.type)) for field in TABLES[name]]
        else:
            columns = [row[:2] for row in connection.execute(f"DESCRIBE {_without_comments(sql)}").fetchall()]
        fields = ", ".join(f'"{column}" {kind}' for column, kind in columns)
        connection.execute(f"CREATE TABLE {name} ({fields})")
    for name, sql in reversed(list(queries.items())):
        connection.execute(f"DROP TABLE {name}; CREATE VIEW {name} AS {sql}")


def _views_of_files(
    files: Mapping[str, Sequence[Files]], every: Mapping[str, Sequence[Files]], where: str
) -> dict[str, str]:
    """View -> SQL, of the views over files that are not just a table: the sums, and the rows of all instances."""
    found = {
        f"{table}{_BY_INSTANCE}": _by_instance(
            table, every[table], _table_view(TABLES[table], every[table], ", filename = true", named=True)
        )
        for table in RESULTS
    }
    sums = every["outcomes"]
    return found | {
        _SUMS: f"FROM ({_sums(files['outcomes'])}){where}",
        f"{_SUMS}{_BY_INSTANCE}": _by_instance("outcomes", sums, _sums(sums, named=True)),
    }


def needed(sql: str) -> set[str] | None:
    """The tables and query views that a query reads, directly or through another one; None for all of them.

    A query that names no table and no view gets all of them, for it may list them (SHOW TABLES) or misspell one; only
    one that begins with SELECT and reads from nothing gets none.
    """
    words, views = _words(sql), _dependencies().keys()
    if not words & {*views, *TABLES}:
        reads_nothing = sql.lstrip().lower().startswith("select") and not words & _READING
        return set() if reads_nothing else None
    found = words & views | needed_twice(sql)
    below = [view_sql(name) for name in found & {*view_names()}]
    sums = {"outcomes"} if any(name.startswith(_SUMS) for name in found) else set()
    histories = {name.removesuffix(_BY_INSTANCE) for name in found if name.endswith(_BY_INSTANCE)}
    tables = words.union(*map(_words, below)) | sums | histories | ({"instance_files"} if histories else set())
    return found | tables & TABLES.keys()


def needed_twice(sql: str) -> set[str]:
    """Views that the views of a query read, perhaps several times: each time would read the same files again."""
    dependencies = _dependencies()
    found: set[str] = set()
    named = _words(sql) & dependencies.keys()
    while named:
        named = set().union(*(dependencies[name] for name in named))
        found |= named
    return found


def check_reads_only(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Check that SQL is a single statement that only reads.

    A SELECT may have a COPY in its WITH clause, but only at the top level: as the subquery of `query` it does not
    bind. EXPLAIN executes nothing.

    Raises:
        ValueError: It has several statements, or one that may write.
        duckdb.Error: It has a syntax error, or names an unknown table or column.
    """
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
        raise ValueError(f"sql: one SELECT statement (or DESCRIBE, SUMMARIZE, SHOW) is accepted, not {kinds}")
    connection.execute(f"EXPLAIN FROM query({literal(sql)})").fetchall()


def first_line(error: duckdb.Error) -> str:
    """The first line of a DuckDB error, without the error's class and the excerpt of the query."""
    line = str(error).strip().splitlines()[0]
    return f"sql: {line.removeprefix('Catalog Error: ').removeprefix('Binder Error: ')}"


def literal(text: str) -> str:
    """Text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _dependencies() -> dict[str, set[str]]:
    """View -> the views that its query reads."""
    made = [_SUMS, *(f"{table}{_BY_INSTANCE}" for table in (*RESULTS, _SUMS))]
    names = {*view_names(), *made}
    queries = {name: _without_comments(view_sql(name)) for name in view_names()}
    return {name: set() for name in made} | {
        name: set(re.findall(r"(?:FROM|JOIN) (\w+)", sql)) & names for name, sql in queries.items()
    }


def _words(sql: str) -> set[str]:
    return set(re.findall(r"\w+", sql.lower()))


def _table_view(schema: pa.Schema, files: Sequence[Files], options: str = "", *, named: bool = False) -> str:
    """A query with the columns of the schema, also over older files that lack some.

    As the columns are given, DuckDB opens only files that may have rows of the query.

    Args:
        schema: The table's.
        files: Its files.
        options: More arguments of `read_parquet`.
        named: Whether the result has the column `filename`.
    """
    if not files:
        fields = [*schema, pa.field("filename", pa.string())] if named else list(schema)
        empty = ", ".join(f'NULL::{_sql_type(field.type)} AS "{field.name}"' for field in fields)
        return f"SELECT {empty} WHERE false"
    columns = ", ".join(
        f"'{field.name}': {{name: '{field.name}', type: '{_sql_type(field.type)}', default_value: NULL}}"
        for field in schema
    )
    reading = f"schema = MAP {{{columns}}}, hive_partitioning = false{options}"
    return " UNION ALL ".join(f"({_renamed(f'read_parquet({one.paths}, {reading})', one.run)})" for one in files)


def _renamed(source: str, run: str | None) -> str:
    return f"FROM {source}" if run is None else f"SELECT * REPLACE ({literal(run)} AS run) FROM {source}"


def _sums(files: Sequence[Files], *, named: bool = False) -> str:
    if not files:
        return _table_view(SUMS_SCHEMA, [], named=named)
    parts = []
    for one in files:
        rows = _table_view(TABLES["outcomes"], [Files(one.paths)], ", filename = true")
        parts.append(f"({_renamed(f'({sums_view(one.paths, rows, named=named)})', one.run)})")
    return " UNION ALL ".join(parts)


def _by_instance(table: str, files: Sequence[Files], rows: str) -> str:
    """The rows of every instance: a file belongs to each instance whose list has its name.

    A current file's name lacks the digest of its key, which is read from its footer. Rows that are current and in the
    history too count once.
    """
    if not files:
        return f"SELECT NULL::VARCHAR AS instance, rows.* EXCLUDE (filename) FROM ({rows}) AS rows"
    footers = " UNION ALL ".join(f"FROM parquet_kv_metadata({one.paths})" for one in files)
    return f"""
        SELECT instance, rows.* EXCLUDE (filename) FROM ({rows}) AS rows
        JOIN (
            SELECT min(file_name) AS filename,
                string_split(parse_filename(file_name, true), '-')[1] || '-'
                    || left(sha256(decode(value)), {KEY_DIGITS}) || '.parquet' AS file
            FROM ({footers}) WHERE key = 'overedit.key'::BLOB GROUP BY file
        ) AS named USING (filename)
        JOIN (SELECT instance, file FROM instance_files WHERE table_name = '{table}') AS listed USING (file)"""


def _sql_type(arrow: pa.DataType) -> str:
    if pa.types.is_list(arrow):
        return f"{_sql_type(arrow.value_type)}[]"
    if pa.types.is_timestamp(arrow):
        return "TIMESTAMP WITH TIME ZONE"
    names = {
        pa.string(): "VARCHAR",
        pa.int64(): "BIGINT",
        pa.int32(): "INTEGER",
        pa.float64(): "DOUBLE",
        pa.bool_(): "BOOLEAN",
    }
    return names[arrow]


def _without_comments(sql: str) -> str:
    return re.sub(r"--[^\n]*", "", sql)
