"""The warehouse: Parquet files (`files.py`), and the DuckDB views that read them."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import duckdb
import pyarrow as pa

from overedit.editing.storage.atomic import remove_leftovers, replace_file
from overedit.tasks.warehouse.attached import in_schemas, names_in_words, register
from overedit.tasks.warehouse.files import TableFiles
from overedit.tasks.warehouse.layout import HISTORY, current_path, folder_name
from overedit.tasks.warehouse.tables import RESULTS, TABLES
from overedit.tasks.warehouse.views import (
    Files,
    check_reads_only,
    create_views,
    first_line,
    literal,
    needed,
    needed_twice,
    view_names,
)


class Warehouse(TableFiles):
    """The tables under one root, and the views over them; see `TableFiles`."""

    def connect(
        self,
        *,
        run: str | None = None,
        sql: str = "",
        instances: Iterable[str] = (),
        attach: Mapping[str, Warehouse] | None = None,
    ) -> duckdb.DuckDBPyConnection:
        """An in-memory DuckDB with the views of the tables and the query views; it locks no file.

        It can read no file outside the root and those of attached warehouses, and its settings are locked. The caller
        closes it.

        Args:
            run: Restrict the views to this run, `RUN` or `RUN@INSTANCE`, and compute every query view once, now: for a
                reader who needs them all.
            sql: The query to come: only the views that it needs are created, and views that its views build on are
                computed once, now.
            instances: `RUN@INSTANCE` names whose rows the views have in addition, with that name as their run.
            attach: Schema -> another warehouse, whose tables and views are in it, e.g. `nightly.leaderboard`.

        Raises:
            ValueError: There is no such instance, or a schema's name is not accepted.
        """
        connection = duckdb.connect(":memory:")
        connection.execute("SET enable_progress_bar = false")  # it would be printed into the result
        computed = view_names() if run is not None else needed_twice(sql)
        self._create_views(connection, run=run, instances=instances, computed=computed, wanted=needed(sql))
        for other in in_schemas(connection, attach or {}):
            other._create_views(connection, run=run, computed=computed, wanted=needed(sql))
        # the views spell the root as a glob with escaped characters, so both spellings are allowed
        roots = {self.root, *(other.root for other in (attach or {}).values())}
        allowed = ", ".join(literal(name) for root in roots for name in {root, _escape_glob(root)})
        connection.execute(f"SET allowed_directories = [{allowed}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET lock_configuration = true")
        return connection

    def query(
        self, sql: str, *, instances: Iterable[str] = (), attach: Mapping[str, Warehouse] | None = None
    ) -> pa.Table:
        """The result of one SELECT (or DESCRIBE, SUMMARIZE, SHOW) over the tables and views.

        Args:
            sql: The query.
            instances: As in `connect`.
            attach: As in `connect`.

        Raises:
            ValueError: Not a single reading statement, an unknown table or column, or a file outside the roots.
        """
        with self.connect(sql=sql, instances=instances, attach=attach) as connection:
            try:
                check_reads_only(connection, sql)
                return connection.sql(sql).to_arrow_table()
            except duckdb.CatalogException as error:
                raise ValueError(f"{first_line(error)} {names_in_words(attach)}") from error
            except duckdb.Error as error:
                raise ValueError(first_line(error)) from error

    def publish(self) -> str:
        """Write `warehouse.duckdb`, which holds only views, and remove the temporary files of dead writers.

        The views read the files beside the database, wherever it is when it is opened; DuckDB 1.4 and newer read it. A
        session that attaches it to another database names its folder: `SET VARIABLE warehouse = '/folder'`.

        Returns:
            The database's path or URL.
        """
        with tempfile.TemporaryDirectory() as folder:
            database = Path(folder) / "warehouse.duckdb"
            with duckdb.connect(str(database), config={"storage_compatibility_version": _OLDEST_DUCKDB}) as connection:
                connection.execute(f"SET VARIABLE warehouse = {literal(self.root)}")  # of this session
                connection.begin()  # or each view is flushed to the disk by itself
                self._create_views(connection, is_published=True)
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
        *,
        run: str | None = None,
        instances: Iterable[str] = (),
        computed: Collection[str] = (),
        wanted: Collection[str] | None = None,
        is_published: bool = False,
    ) -> None:
        if not self._is_local:
            register(connection, self._files)
        root = _FOLDER_OF_DATABASE if is_published and self._is_local else literal(_escape_glob(self.root) + "/")
        files: dict[str, list[Files]]
        if run is not None and "@" in run:
            files = {table: [] for table in TABLES}
            instances = [run]
        else:
            files = {table: self._globs(root, table, run=run) for table in TABLES}
        for instance in instances:
            for table, paths in self._files_of_instance(instance).items():
                files[table].append(Files(paths, run=instance))
        every = {table: [*files[table], *self._globs(root, f"{HISTORY}/{table}")] for table in RESULTS}
        create_views(connection, files, every=every, run=run, computed=computed, wanted=wanted)

    def _globs(self, root: str, table: str, *, run: str | None = None) -> list[Files]:
        """The glob of a table's files below an SQL expression for the root; none if it has no files.

        With a run, only its files, if the table's folders separate the runs.
        """
        folder = self._folder(table, run)
        if not any(name.endswith(".parquet") for _, _, names in self._files.walk(folder) for name in names):
            return []
        inside = literal(f"{_escape_glob(folder.removeprefix(f'{self._path}/'))}/**/*.parquet")
        return [Files(f"{root} || {inside}")]

    def _folder(self, table: str, run: str | None) -> str:
        """The folder of a run's rows of a table, or the table's own folder if its folders do not separate the runs."""
        folder = f"{self._path}/{table}"
        if run is not None and self._files.isdir(f"{folder}/{folder_name(run)}"):
            return f"{folder}/{folder_name(run)}"
        return folder

    def _files_of_instance(self, instance: str) -> dict[str, str]:
        """Table -> SQL for the list of an instance's files, those of the history included."""
        run, _, name = instance.partition("@")
        paths: dict[str, list[str]] = {}
        for row in self.rows("instance_files", {"run": run, "instance": name}):
            kept, current = f"{self._path}/{HISTORY}/{row['path']}", f"{self._path}/{current_path(row['path'])}"
            found = kept if self._files.exists(kept) else current
            if found == kept or (self._files.exists(current) and self._identity(current) == row["path"]):  # not pruned
                paths.setdefault(row["table_name"], []).append(self._url(found))
        if not paths:
            known = sorted({row["instance"] for row in self.rows("instance_files", {"run": run})})
            raise ValueError(f"run: {run!r} has no instance {name!r}; its instances are {', '.join(known) or 'none'}")
        return {table: f"[{', '.join(literal(_escape_glob(path)) for path in of)}]" for table, of in paths.items()}


def _escape_glob(path: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in path)


_OLDEST_DUCKDB = "v1.4.0"
_FOLDER_OF_DATABASE = """regexp_replace(coalesce(getvariable('warehouse') || '/', regexp_replace(
    current_setting('temp_directory'), '[^/\\\\]*$', '')), '([*?[])', '[\\1]', 'g')"""
"""SQL for the folder of the database that a session has opened: by default its temporary folder is beside the file."""
