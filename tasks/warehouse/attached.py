"""Other warehouses beside the one that is asked: each has its tables and views in a schema of its own.

The schema has the name of the folder that holds the other warehouse, or one that the user gives, so
`nightly.leaderboard` is the other's view and `leaderboard` is always the warehouse's own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import duckdb
from fsspec import AbstractFileSystem

from overedit.tasks.system.untrusted import shown_value
from overedit.tasks.warehouse.tables import TABLES
from overedit.tasks.warehouse.views import view_names

Attached = TypeVar("Attached")

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_TAKEN = ("main", "memory", "temp", "system", "information_schema", "pg_catalog")  # by DuckDB itself


def named_folders(given: Sequence[str]) -> dict[str, Path]:
    """Schema -> folder, of `NAME=FOLDER`, or of `FOLDER` alone, whose own name is taken with `_` for other signs.

    Raises:
        ValueError: Two have the same name.
    """
    found: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not equals or _NAME.fullmatch(name) is None:
            name, folder = _schema_of(Path(text)), text
        if name in found:
            raise ValueError(f"attach: two folders are named {name!r}; name one of them: --attach NAME={folder}")
        found[name] = Path(folder)
    return found


def check_schemas(names: Collection[str]) -> None:
    """Check the names of attached warehouses.

    Raises:
        ValueError: One is no plain name, or means something else in SQL already.
    """
    taken = {*_TAKEN, *TABLES, *view_names()}
    for name in names:
        if _NAME.fullmatch(name) is None or name.lower() in taken:
            what = "letters, digits and underscores, not the name of a table or view; give one by NAME=FOLDER"
            raise ValueError(f"attach: {shown_value(name)} cannot name a warehouse; accepted: {what}")
    if len({name.lower() for name in names}) < len(names):
        raise ValueError(f"attach: {', '.join(names)}: two names differ in case alone, which SQL ignores")


def in_schemas(connection: duckdb.DuckDBPyConnection, attach: Mapping[str, Attached]) -> Iterator[Attached]:
    """Give each attached warehouse while its schema is the current one, in which its views find one another.

    Raises:
        ValueError: A schema's name is not accepted.
    """
    check_schemas(attach)
    for name, warehouse in attach.items():
        connection.execute(f'CREATE SCHEMA "{name}"')
        connection.execute(f'USE "{name}"')
        yield warehouse
    connection.execute("USE main")


def register(connection: duckdb.DuckDBPyConnection, files: AbstractFileSystem) -> None:
    """Let a connection read an object store's files; warehouses of one store share it."""
    names = {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)
    if not names & set(connection.list_filesystems()):
        connection.register_filesystem(files)


def names_in_words(attach: Mapping[str, object] | None) -> str:
    """How an error message names what can be asked."""
    attached = "".join(f"; those of {name} are {name}.leaderboard and so on" for name in attach or ())
    return f"The tables and views are: {', '.join([*TABLES, *view_names()])}{attached}."


def _schema_of(folder: Path) -> str:
    name = re.sub(r"\W", "_", folder.expanduser().resolve().name, flags=re.ASCII)
    return f"_{name}" if name[:1].isdigit() else name
