"""Reads the rows of a dataset from a local file (JSON, JSONL, Parquet, CSV) or from the dataset hub.

Files are untrusted: their sizes are bounded, their values are checked, errors name what is wrong, and no code is run.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from overedit.tasks.data.catalog import Hub
from overedit.tasks.system.untrusted import error_message, read_plain_file, shown_value

Row = Mapping[str, Any]

MOST_BYTES = 4 << 30
MOST_ROWS = 10_000_000  # a Parquet file of a few bytes can claim any number
MOST_BYTES_UNPACKED = 16 << 30
SEPARATORS = {".csv": ",", ".tsv": "\t"}
"""Ending of a file's name -> what separates its columns."""


def read_file(path: Path) -> list[Row]:
    """Read the rows of a file: a JSON array, JSONL (an object a line) or Parquet, as its content tells; or CSV.

    A file named .csv (commas) or .tsv (tabs) has a header of column names; its values are texts, an empty one is null.

    Raises:
        ValueError: The file is missing, not an ordinary one, empty, unreadable, too large, of another kind, or broken
            (line and column named).
    """
    content = read_plain_file(path, what="dataset file", most_bytes=MOST_BYTES)
    if not content.strip():
        raise ValueError(f"dataset file {path} is empty")
    if content.startswith(b"PAR1"):
        rows = _parquet_rows(content, path)
    else:
        text = _text_of(content, path)
        separator = SEPARATORS.get(path.suffix.lower())
        rows = _json_rows(text, path) if separator is None else _csv_rows(text, path, separator)
    if not rows:
        raise ValueError(f"dataset file {path} holds no rows")
    return rows


def read_hub(hub: Hub, revision: str | None) -> Sequence[Row]:
    """Read the rows of a dataset on the hub with the `datasets` library, which caches them and runs no code.

    Raises:
        ValueError: The hub or the dataset cannot be reached.
    """
    import datasets

    try:
        rows: Sequence[Row] = datasets.load_dataset(
            hub.dataset_id, data_files=list(hub.files) or None, split=hub.split, revision=revision
        )
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"dataset {hub.dataset_id!r} cannot be fetched from the hub ({reason}); name a local file by `path`"
        ) from error
    return rows


def _text_of(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kinds = "no CSV" if path.suffix.lower() in SEPARATORS else "neither JSON, JSONL nor Parquet"
        raise ValueError(f"dataset file {path} is {kinds}: byte {error.start + 1} is not UTF-8 text") from error


def _parquet_rows(content: bytes, path: Path) -> list[Row]:
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        size = sum(file.metadata.row_group(index).total_byte_size for index in range(file.metadata.num_row_groups))
        if file.metadata.num_rows > MOST_ROWS or size > MOST_BYTES_UNPACKED:
            raise ValueError(
                f"dataset file {path} has {file.metadata.num_rows:,} rows of {size:,} bytes in all; at most "
                f"{MOST_ROWS:,} rows and {MOST_BYTES_UNPACKED:,} bytes are read"
            )
        names = file.schema_arrow.names
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"dataset file {path}: the column {shown_value(twice)} occurs twice; once is accepted")
        rows: list[Row] = file.read().to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, LookupError, TypeError) as error:
        reason = error_message(error)
        raise ValueError(f"dataset file {path} is not a whole Parquet file: {reason}") from error
    return rows


def _csv_rows(text: str, path: Path, separator: str) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    rows: list[Row] = []
    header: list[str] = []
    try:
        for values in reader:
            if not values:  # an empty line
                continue
            if not header:
                header = _header([name.strip() for name in values], path)
            elif len(values) != len(header):
                raise ValueError(
                    f"dataset file {path}, line {reader.line_num}: {len(values)} values, but the header names "
                    f"{len(header)} columns; a value that contains {separator!r} needs quotation marks"
                )
            else:
                rows.append({name: value or None for name, value in zip(header, values, strict=True)})
    except csv.Error as error:
        raise ValueError(f"dataset file {path} is not readable CSV: {error} in line {reader.line_num}") from error
    return rows


def _header(names: list[str], path: Path) -> list[str]:
    bad = next((name for name in names if not name or names.count(name) > 1), None)
    if bad is not None:
        what = f"the column {shown_value(bad)} occurs twice" if bad else "a column has no name"
        raise ValueError(f"dataset file {path}, line 1: {what}; a header with a name for each column is accepted")
    return names


def _json_rows(text: str, path: Path) -> list[Row]:
    if not text.lstrip().startswith("{"):
        return _objects(_parsed(text, path), path)
    first_line = text.lstrip().split("\n", 1)[0]
    if "\n" not in text.strip() or _is_json(first_line):
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        return _objects([_parsed(line, path, number) for number, line in lines], path)
    return _objects(_parsed(text, path), path)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


class _Doubled(dict[str, Any]):
    """An object of a file with a duplicate key."""

    key: str


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    doubled = _Doubled(found)
    keys = [key for key, _ in pairs]
    doubled.key = next(key for key in keys if keys.count(key) > 1)
    return doubled


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value; numbers, texts, true, false and null are accepted")


def _parsed(text: str, path: Path, line: int | None = None) -> Any:
    at = f" in line {line}" if line else ""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        where = f"line {line or error.lineno}, column {error.colno}"
        accepted = "JSON, JSONL and Parquet are accepted, and CSV with a header in a file named .csv or .tsv"
        hint = "" if line or text.lstrip()[:1] in ("[", "{") else f"; {accepted}"
        raise ValueError(f"dataset file {path} is not JSON: {error.msg} at {where}{hint}") from error
    except RecursionError as error:
        raise ValueError(f"dataset file {path} is not readable JSON: lists or objects nested too deep{at}") from error
    except ValueError as error:
        reason = str(error).partition(";")[0] if "digits" in str(error) else str(error)
        raise ValueError(f"dataset file {path} is not readable JSON: {reason}{at}") from error


def _objects(rows: Any, path: Path) -> list[Row]:
    if not isinstance(rows, list):
        raise ValueError(
            f"dataset file {path} holds one JSON {_kind(rows)}, not a list of objects (one object an edit)"
        )
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"dataset file {path}, row {number}: a JSON {_kind(row)}, not an object")
        if (key := _doubled_key(row)) is not None:
            raise ValueError(f"dataset file {path}, row {number}: the key {shown_value(key)} occurs twice in an object")
    return rows


def _doubled_key(row: Any) -> str | None:
    """A duplicate key of an object, at any depth."""
    waiting = [row]
    while waiting:
        value = waiting.pop()
        if isinstance(value, _Doubled):
            return value.key
        if isinstance(value, dict):
            waiting += [item for item in value.values() if isinstance(item, dict | list)]
        elif isinstance(value, list):
            waiting += [item for item in value if isinstance(item, dict | list)]
    return None


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
