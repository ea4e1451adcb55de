"""The warehouse: Parquet files that many writers fill without a lock, and the DuckDB views that read them.

A table is a folder of hive-named folders, which hold one file per stage:
`<root>/<table>/run=demo/edit_count=10/<name>.parquet`. The name of a file is a function of its rows' identity, so
running a stage again replaces its file and cannot double its rows. The files also store the partition columns; readers
take them from there and ignore the folders' names, so every column exists once and has its type.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import quote

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from overedit.editing.storage.atomic import remove_leftovers, replace_file
from overedit.tasks.warehouse.arrow_rows import Rows, conform, to_arrow
from overedit.tasks.warehouse.attached import in_schemas, names_in_words, register
from overedit.tasks.warehouse.outcome_sums import added_up, sums_of, to_footer
from overedit.tasks.warehouse.parquet_checksum import SEAL, is_whole, seal, stored_checksum
from overedit.tasks.warehouse.tables import TABLES
from overedit.tasks.warehouse.views import (
    check_reads_only,
    create_views,
    first_line,
    literal,
    needed,
    needed_twice,
    view_names,
)

__all__ = ["KEY", "Partition", "Warehouse"]

logger = logging.getLogger(__name__)

KEY = b"overedit.key"
"""The entry of a file's schema metadata that holds the key of the stage that wrote it."""

Partition = Mapping[str, str | int]
"""Columns whose values all rows of a file share -> these values."""


class Warehouse:
    """Tables under one root, a local folder or an fsspec URL.

    Args:
        root: A folder, which the first write makes, or a URL such as `s3://bucket/overedit`.
    """

    def __init__(self, root: Path | str) -> None:
        self._files, path = fsspec.core.url_to_fs(os.fspath(root))
        self._is_local = isinstance(self._files, LocalFileSystem)
        self._path = str(Path(path).resolve()) if self._is_local else path.rstrip("/")
        self.root: str = self._url(self._path)
        """Absolute path or URL."""

    def write(self, table: str, rows: Rows, *, partition: Partition, key: str, part: str = "") -> str:
        """Write the rows of a stage to their file, replacing the rows that it had.

        Args:
            table: A key of `TABLES`.
            rows: An Arrow table or records, which need not all be in memory; nullable columns may be left out.
            partition: The identity that the rows share, e.g. `{"run": "demo", "edit_count": 10}`. The file is named
                after it and `part`, so two stages with the same identity need two parts.
            key: Digest of the stage's inputs and code, stored in the file's schema metadata as `overedit.key`.
            part: Distinguishes files of one partition, e.g. the shards of a stage.

        Returns:
            The file's path or URL.

        Raises:
            ValueError: An unknown table or column, a wrong type, a missing value, or a row outside the partition.
        """
        path = self._file(table, partition, part)
        schema = TABLES[table].with_metadata({KEY: key.encode()} | SEAL)

        def write_to(stream: IO[bytes]) -> None:
            sums = []
            with pq.ParquetWriter(stream, schema, compression="zstd") as writer:
                for some in to_arrow(table, rows, partition):
                    writer.write_table(some)
                    if table == "outcomes":
                        sums.append(sums_of(some))
                if table == "outcomes":
                    writer.add_key_value_metadata(to_footer(added_up(sums)))
            seal(stream)

        if self._is_local:
            with replace_file(Path(path)) as stream:
                write_to(stream)
        else:  # written to a local file first: an object store would show the rows before a bad one
            self._files.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
            with tempfile.NamedTemporaryFile() as stream:
                write_to(stream)
                stream.flush()
                self._files.put_file(stream.name, path)
        return self._url(path)

    def holds(self, table: str, partition: Partition, key: str, *, part: str = "") -> bool:
        """Whether the stage's file exists and was written with this key; reads only its footer."""
        path = self._file(table, partition, part)
        if not self._files.exists(path):
            return False
        return bool((self._read_schema(path).metadata or {}).get(KEY) == key.encode())

    def set_aside_damaged(self, run: str) -> list[Path]:
        """Rename the damaged files of a run, so that no reader sees them and their stages run again.

        This reads every byte of the run's files. Files in an object store, which has checksums of its own, are not
        checked.

        Returns:
            The new paths, which end in `.damaged`.
        """
        found = []
        for table in TABLES if self._is_local else ():
            folder = Path(self._path) / table / _folders(table, {"run": run})[0]
            for path in sorted(folder.rglob("*.parquet")):
                if not is_whole(path):
                    found.append(path.rename(f"{path}.damaged"))
                    logger.warning("damaged file set aside, to be made again if its stage runs: %s", path)
        return found

    def checksums(self, run: str) -> dict[str, str] | None:
        """Path below the root -> checksum, of every file with rows of a run; None for an object store.

        The checksums are read from the footers and not compared with the content.
        """
        if not self._is_local:
            return None
        root = Path(self._path)
        paths = [path for table in TABLES for path in Path(self._folder(table, run)).rglob("*.parquet")]
        return {str(path.relative_to(root)): stored_checksum(path) for path in sorted(paths)}

    def rows(self, table: str, partition: Partition | None = None) -> list[dict[str, Any]]:
        """The records of every file whose partition has these values, in the order of the files' names."""
        schema = _schema(table)
        wanted = set(_folders(table, partition or {}))
        tables = []
        for path in self._parquet_files(table):
            if wanted <= set(PurePosixPath(path).parts):
                with self._files.open(path, "rb") as stream:
                    tables.append(conform(table, pq.read_table(stream), schema))
        return list(pa.concat_tables(tables).to_pylist()) if tables else []

    def connect(
        self, *, run: str | None = None, sql: str = "", attach: Mapping[str, Warehouse] | None = None
    ) -> duckdb.DuckDBPyConnection:
        """An in-memory DuckDB with the views of the tables and the query views; it locks no file.

        It can read no file outside the root and those of attached warehouses, and its settings are locked. The caller
        closes it.

        Args:
            run: Restrict the views to this run and compute every query view once, now: for a reader who needs them all.
            sql: The query to come: only the views that it needs are created, and views that its views build on are
                computed once, now.
            attach: Schema -> another warehouse, whose tables and views are in it, e.g. `nightly.leaderboard`.

        Raises:
            ValueError: A schema's name is not accepted.
        """
        connection = duckdb.connect(":memory:")
        computed = view_names() if run is not None else needed_twice(sql)
        self._create_views(connection, run, computed, needed(sql))
        for other in in_schemas(connection, attach or {}):
            other._create_views(connection, run, computed, needed(sql))
        # the views spell the root as a glob with escaped characters, so both spellings are allowed
        roots = {self.root, *(other.root for other in (attach or {}).values())}
        allowed = ", ".join(literal(name) for root in roots for name in {root, _escape_glob(root)})
        connection.execute(f"SET allowed_directories = [{allowed}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET enable_progress_bar = false")  # it would be printed into the result
        connection.execute("SET lock_configuration = true")
        return connection

    def query(self, sql: str, *, attach: Mapping[str, Warehouse] | None = None) -> pa.Table:
        """The result of one SELECT (or DESCRIBE, SUMMARIZE, SHOW) over the tables and views.

        Args:
            sql: The statement.
            attach: As in `connect`.

        Raises:
            ValueError: Not a single reading statement, an unknown table or column, or a file outside the roots.
        """
        with self.connect(sql=sql, attach=attach) as connection:
            try:
                check_reads_only(connection, sql)
                return connection.sql(sql).to_arrow_table()
            except duckdb.CatalogException as error:
                raise ValueError(f"{first_line(error)} {names_in_words(attach)}") from error
            except duckdb.Error as error:
                raise ValueError(first_line(error)) from error

    def publish(self) -> str:
        """Write `warehouse.duckdb`, which holds only views, and remove the temporary files of dead writers.

        The views contain the absolute path of the root: publish again after moving the folder. `connect` and `query`
        do not use the file and work wherever the folder is.

        Returns:
            The database's path or URL.
        """
        with tempfile.TemporaryDirectory() as folder:
            database = Path(folder) / "warehouse.duckdb"
            with duckdb.connect(str(database)) as connection:
                connection.begin()  # or each view is flushed to the disk by itself
                self._create_views(connection)
                connection.commit()
            content = database.read_bytes()
        target = f"{self._path}/warehouse.duckdb"
        if self._is_local:
            with replace_file(Path(target)) as stream:
                stream.write(content)
            remove_leftovers(Path(self._path))
        else:
            self._files.pipe_file(target, content)
        return self._url(target)

    def _create_views(
        self,
        connection: duckdb.DuckDBPyConnection,
        run: str | None = None,
        computed: Collection[str] = (),
        wanted: Collection[str] | None = None,
    ) -> None:
        if not self._is_local:
            register(connection, self._files)
        files = {table: self._glob(table, run) for table in TABLES}
        create_views(connection, files, run=run, computed=computed, wanted=wanted)

    def _glob(self, table: str, run: str | None) -> str | None:
        """The glob of a table's files as an SQL literal; None if it has no files.

        With a run, only its files, if the table's folders separate the runs.
        """
        folder = self._folder(table, run)
        if not any(name.endswith(".parquet") for _, _, names in self._files.walk(folder) for name in names):
            return None
        return literal(f"{_escape_glob(self._url(folder))}/**/*.parquet")

    def _folder(self, table: str, run: str | None) -> str:
        """The folder of a run's rows of a table, or the table's own folder if its folders do not separate the runs."""
        folder = f"{self._path}/{table}"
        if run is not None and self._files.isdir(folder):
            names = [PurePosixPath(path).name for path in self._files.ls(folder, detail=False)]
            if all(name.startswith("run=") for name in names):
                return f"{folder}/{_folders(table, {'run': run})[0]}"
        return folder

    def _read_schema(self, path: str) -> pa.Schema:
        with self._files.open(path, "rb") as stream:
            return pq.read_schema(stream)

    def _parquet_files(self, table: str) -> list[str]:
        return [path for path in sorted(self._files.find(f"{self._path}/{table}")) if path.endswith(".parquet")]

    def _file(self, table: str, partition: Partition, part: str) -> str:
        folders = "/".join(_folders(table, partition))
        name = hashlib.sha256(f"{table}/{folders}/{part}".encode()).hexdigest()[:16]
        return "/".join(filter(None, [self._path, table, folders, f"{name}.parquet"]))

    def _url(self, path: str) -> str:
        return path if self._is_local else str(self._files.unstrip_protocol(path))


def _schema(table: str) -> pa.Schema:
    if table not in TABLES:
        raise ValueError(f"table: {table!r} is unknown; the tables are {', '.join(TABLES)}")
    return TABLES[table]


def _folders(table: str, partition: Partition) -> list[str]:
    """The names of the hive folders, in the order of the table's columns, whatever the order of the mapping."""
    schema = _schema(table)
    unknown = sorted(set(partition) - set(schema.names))
    if unknown:
        raise ValueError(f"partition: {table} has no column {unknown[0]!r}; its columns are {', '.join(schema.names)}")
    return [f"{name}={quote(str(partition[name]), safe='')}" for name in schema.names if name in partition]


def _escape_glob(path: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in path)
