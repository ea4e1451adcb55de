"""Where a warehouse keeps the rows of a stage: the names of folders and files.

`<root>/<table>/<value>/<value>/<name>.parquet`, e.g. `outcomes/demo/ultraedit/0/100/4f1c...-9a02....parquet`. A folder
is named after the value of a partition column, in the order of the table's columns. A file's name has two digests: of
what its rows describe, and of the stage's key. Rows that newer ones have replaced are in the same place below
`<root>/history/`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from urllib.parse import quote

import pyarrow as pa

from overedit.tasks.warehouse.tables import TABLES

HISTORY = "history"
"""The folder of replaced rows, below the root."""

Partition = Mapping[str, str | int]
"""Columns whose values all rows of a file share -> these values."""


def schema_of(table: str) -> pa.Schema:
    """The schema of a table.

    Raises:
        ValueError: There is no such table.
    """
    if table not in TABLES:
        raise ValueError(f"table: {table!r} is unknown; the tables are {', '.join(TABLES)}")
    return TABLES[table]


def folder_names(table: str, partition: Partition) -> list[str]:
    """The folders of a partition, in the order of the table's columns, whatever the order of the mapping.

    Raises:
        ValueError: The table or a column is unknown.
    """
    return [folder_name(partition[name]) for name in _columns(table, partition)]


def folder_name(value: str | int) -> str:
    """The folder of one value. Readers of datasets skip names that begin with a dot or an underscore."""
    quoted = quote(str(value), safe="")
    return f"%{ord(quoted[0]):02X}{quoted[1:]}" if quoted[:1] in (".", "_") else quoted


def file_stem(table: str, partition: Partition, part: str) -> str:
    """The first half of a file's name: a digest of the table, the partition and the part."""
    values = "/".join(f"{name}={quote(str(partition[name]), safe='')}" for name in _columns(table, partition))
    return hashlib.sha256(f"{table}/{values}/{part}".encode()).hexdigest()[:16]


def file_name(stem: str, key: str) -> str:
    """A file's name; the second half is a digest of the key of the stage that wrote it."""
    return f"{stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.parquet"


def stage_path(table: str, partition: Partition, key: str, part: str) -> str:
    """The path of a stage's file, below the root."""
    name = file_name(file_stem(table, partition, part), key)
    return "/".join([table, *folder_names(table, partition), name])


def new_path(old: str, key: str) -> str:
    """The path of a file that an older version named `<table>/run=demo/.../<stem>.parquet`."""
    table, *folders, name = PurePosixPath(old).parts
    values = [folder.partition("=")[2] for folder in folders]
    return "/".join([table, *values, file_name(PurePosixPath(name).stem, key)])


def _columns(table: str, partition: Partition) -> list[str]:
    schema = schema_of(table)
    unknown = sorted(set(partition) - set(schema.names))
    if unknown:
        raise ValueError(f"partition: {table} has no column {unknown[0]!r}; its columns are {', '.join(schema.names)}")
    return [name for name in schema.names if name in partition]
