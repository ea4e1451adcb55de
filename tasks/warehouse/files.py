"""The Parquet files of a warehouse, which many writers fill without a lock.

A table is a folder of folders, which hold one file per stage (`layout.py`). A file is named after what its rows
describe, so a stage that runs again replaces its file and cannot double its rows; a reader sees the old rows or the new
ones. If the new rows have another key (other inputs, code or packages), `<root>/history/` keeps the old ones. They can
be read there, and a stage that asks for their key takes them over without computing them again.

Every column is in the files, so any reader of Parquet finds it once and with its type, whatever the folders are called.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from overedit.editing.storage.atomic import replace_file
from overedit.tasks.storage.stores import as_url, open_store
from overedit.tasks.storage.working_copy import shown_path
from overedit.tasks.warehouse.arrow_rows import Rows, conform, to_arrow
from overedit.tasks.warehouse.layout import (
    HISTORY,
    Partition,
    current_path,
    folder_name,
    folder_names,
    new_path,
    path_in_history,
    schema_of,
    stage_path,
)
from overedit.tasks.warehouse.outcome_sums import added_up, sums_of, to_footer
from overedit.tasks.warehouse.parquet_checksum import SEAL, is_whole, seal, stored_checksum
from overedit.tasks.warehouse.tables import RESULTS, TABLES

logger = logging.getLogger(__name__)

KEY = b"overedit.key"
"""The entry of a file's schema metadata that holds the key of the stage that wrote it."""

STAGE = b"overedit.stage"
"""The entry that holds its partition and part, as JSON."""


class TableFiles:
    """Tables as Parquet files under one root, a local folder or an fsspec URL.

    Args:
        root: A folder, which the first write makes, or a URL such as `s3://bucket/overedit`; a folder in a working copy
            is the URL for which it stands.
    """

    def __init__(self, root: Path | str) -> None:
        url = as_url(shown_path(root) if isinstance(root, Path) else root)
        self._files, path = open_store(url) if url else fsspec.core.url_to_fs(os.fspath(root))
        self._is_local = isinstance(self._files, LocalFileSystem)
        self._path = str(Path(path).resolve()) if self._is_local else path.rstrip("/")
        self.root: str = self._url(self._path)
        """Absolute path or URL."""

    def write(self, table: str, rows: Rows, *, partition: Partition, key: str, part: str = "") -> str:
        """Write the rows of a stage to their file. Rows that it wrote with another key go to the history.

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
        path = self._file(table, partition, key, part)
        stage = json.dumps([dict(partition), part]).encode()
        schema = TABLES[table].with_metadata({KEY: key.encode(), STAGE: stage} | SEAL)

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
                self._keep(path, unless_key=key)
        else:  # written to a local file first: an object store would show the rows before a bad one
            self._files.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
            with tempfile.NamedTemporaryFile() as stream:
                write_to(stream)
                stream.flush()
                self._keep(path, unless_key=key)
                self._files.put_file(stream.name, path)
        return self._url(path)

    def holds(self, table: str, partition: Partition, key: str, *, part: str = "") -> bool:
        """Whether the current rows of a stage were written with this key; reads only the file's footer."""
        return self._key_of(self._file(table, partition, key, part)) == key

    def reuse(self, table: str, partition: Partition, key: str, *, part: str = "") -> bool:
        """Make the rows that a stage wrote with this key the current ones, if they exist, even in the history.

        Returns:
            Whether they exist; if not, the current rows stay.
        """
        path = self._file(table, partition, key, part)
        if self._key_of(path) == key:
            return True
        kept = f"{self._path}/{HISTORY}/{stage_path(table, partition, key, part)}"
        if not self._files.exists(kept) or (self._is_local and not is_whole(Path(kept))):
            return False
        self._keep(path, unless_key=key)
        if self._is_local:
            with replace_file(Path(path)) as stream:
                stream.write(Path(kept).read_bytes())
        else:
            self._files.cp_file(kept, path)
        return True

    def keep_only(self, run: str, paths: Collection[str]) -> int:
        """Move all current rows of a run to the history except these files, given by their `layout.stage_path`.

        Returns:
            The number of files that were moved.
        """
        whole = [f"{self._path}/{path}" for path in self.current_files(run)]
        stale = [path for path in whole if self._identity(path) not in paths]
        for path in stale:
            self._keep(path)
            self._files.rm_file(path)
        return len(stale)

    def current_files(self, run: str) -> list[str]:
        """The paths below the root of all files with current results of a run."""
        found = [path for table in RESULTS for path in self._parquet_files(f"{table}/{folder_name(run)}")]
        return [path.removeprefix(f"{self._path}/") for path in found]

    def rename_old_files(self, run: str) -> None:
        """Give a run's files that an older version wrote the names of this version; nobody else may write the run."""
        for table in TABLES:
            for path in self._parquet_files(f"{table}/run={folder_name(run)}"):
                to = f"{self._path}/{new_path(path.removeprefix(f'{self._path}/'))}"
                self._files.makedirs(str(PurePosixPath(to).parent), exist_ok=True)
                self._files.mv(path, to)

    def set_aside_damaged(self, run: str) -> list[Path]:
        """Rename the damaged files of a run, so that no reader sees them and their stages run again.

        This reads every byte of the run's files. Files in an object store, which has checksums of its own, are not
        checked.

        Returns:
            The new paths, which end in `.damaged`.
        """
        found = []
        for table in TABLES if self._is_local else ():
            folder = Path(self._path) / table / folder_name(run)
            for path in sorted(folder.rglob("*.parquet")):
                if not is_whole(path):
                    found.append(path.rename(f"{path}.damaged"))
                    logger.warning("damaged file set aside, to be made again if its stage runs: %s", path)
        return found

    def checksums(self, run: str) -> dict[str, str] | None:
        """Path below the root -> checksum, of every file with results of a run; None for an object store.

        The checksums are read from the footers and not compared with the content.
        """
        if not self._is_local:
            return None
        return {path: stored_checksum(Path(self._path) / path) for path in self.current_files(run)}

    def rows(self, table: str, partition: Partition | None = None, *, part: str | None = None) -> list[dict[str, Any]]:
        """The current records of a table that have these values, in the order of the files' names.

        Args:
            table: A key of `TABLES`.
            partition: The values, by column.
            part: Only the rows of the stage of this partition and part.
        """
        wanted = dict(partition or {})
        schema = schema_of(table)
        leading = []
        for name in schema.names:
            if name not in wanted:
                break
            leading.append(name)
        folder = "/".join([table, *folder_names(table, {name: wanted[name] for name in leading})])
        tables = []
        paths = self._parquet_files(folder)
        if part is not None:
            paths = [path for path in paths if path == self._file(table, wanted, "", part)]
        for path in paths:
            with self._files.open(path, "rb") as stream:
                tables.append(conform(table, pq.read_table(stream), schema))
        records = pa.concat_tables(tables).to_pylist() if tables else []
        return [record for record in records if all(record[name] == value for name, value in wanted.items())]

    def _read_schema(self, path: str) -> pa.Schema:
        with self._files.open(path, "rb") as stream:
            return pq.read_schema(stream)

    def _parquet_files(self, folder: str) -> list[str]:
        """The files below a folder of the root, sorted."""
        return [path for path in sorted(self._files.find(f"{self._path}/{folder}")) if path.endswith(".parquet")]

    def _file(self, table: str, partition: Partition, key: str, part: str) -> str:
        return f"{self._path}/{current_path(stage_path(table, partition, key, part))}"

    def _key_of(self, path: str) -> str | None:
        """The key with which a file was written; None for a file that is not there."""
        try:
            return str((self._read_schema(path).metadata or {}).get(KEY, b"").decode())
        except FileNotFoundError:
            return None

    def _identity(self, path: str) -> str:
        """How `instance_files` names a current file."""
        return path_in_history(path.removeprefix(f"{self._path}/"), self._key_of(path) or "")

    def _keep(self, path: str, *, unless_key: str | None = None) -> None:
        """Keep the current rows of a file in the history too, unless they were written with this key."""
        key = self._key_of(path)
        if key is None or key == unless_key or path.removeprefix(f"{self._path}/").split("/")[0] not in RESULTS:
            return
        to = f"{self._path}/{HISTORY}/{self._identity(path)}"
        if self._files.exists(to):
            return
        self._files.makedirs(str(PurePosixPath(to).parent), exist_ok=True)
        if not self._is_local:
            self._files.cp_file(path, to)
            return
        try:
            Path(to).hardlink_to(path)
        except FileExistsError:  # another writer has kept the same rows
            return
        except OSError:  # a file system without hard links
            with replace_file(Path(to)) as stream:
                stream.write(Path(path).read_bytes())

    def _url(self, path: str) -> str:
        return path if self._is_local else str(self._files.unstrip_protocol(path))
