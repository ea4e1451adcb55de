"""Where a warehouse keeps the rows of a stage: the names of folders and files.

`<root>/<table>/<value>/<value>/<name>.parquet`, e.g. `outcomes/demo/ultraedit/0/100/4f1c....parquet`. A folder is named
after the value of a partition column, in the order of the table's columns. A file's name is a digest of what its rows
describe, so that new rows replace it. Rows that newer ones have replaced are in the same folders below
`<root>/history/`, and their names have a second half: a digest of the key of the stage that wrote them.
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

KEY_DIGITS = 12
"""Hexadecimal digits of the key's SHA-256 in the name of a replaced file."""

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


def stage_path(table: str, partition: Partition, key: str, part: str = "") -> str:
    """The path of a stage's file below `history/`. It has the digest of the key, so `instance_files` lists it."""
    return "/".join([table, *folder_names(table, partition), f"{_stem(table, partition, part)}-{_of_key(key)}.parquet"])


def current_path(path: str) -> str:
    """The path below the root of a stage's file while its rows are current, from its `stage_path`."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name.partition('-')[0]}.parquet"


def path_in_history(path: str, key: str) -> str:
    """The reverse of `current_path`: the `stage_path` of a current file that was written with this key."""
    return f"{path.removesuffix('.parquet')}-{_of_key(key)}.parquet"


def new_path(old: str) -> str:
    """The path of a file that an older version named `<table>/run=demo/.../<stem>.parquet`."""
    table, *folders, name = PurePosixPath(old).parts
    return "/".join([table, *(folder.partition("=")[2] for folder in folders), name])


def _stem(table: str, partition: Partition, part: str) -> str:
    values = "/".join(f"{name}={quote(str(partition[name]), safe='')}" for name in _columns(table, partition))
    return hashlib.sha256(f"{table}/{values}/{part}".encode()).hexdigest()[:16]


def _of_key(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:KEY_DIGITS]


def _columns(table: str, partition: Partition) -> list[str]:
    schema = schema_of(table)
    unknown = sorted(set(partition) - set(schema.names))
    if unknown:
        raise ValueError(f"partition: {table} has no column {unknown[0]!r}; its columns are {', '.join(schema.names)}")
    return [name for name in schema.names if name in partition]
