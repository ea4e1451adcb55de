"""Conversion of records to the Arrow schemas of the warehouse, with checks of columns, types and missing values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

import pyarrow as pa

from overedit.tasks.warehouse.tables import TABLES

Rows: TypeAlias = pa.Table | Iterable[Mapping[str, Any]]
"""An Arrow table, or records."""

_RECORDS_AT_ONCE = 32_768

_TYPE_ERRORS = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeEncodeError)


def to_arrow(table: str, rows: Rows, partition: Mapping[str, str | int]) -> Iterator[pa.Table]:
    """Convert rows to Arrow tables of a table's schema; of records, some ten thousand are in memory at a time.

    Raises:
        ValueError: An unknown column, a value of a wrong type, a missing value, or a row outside the partition.
    """
    if isinstance(rows, pa.Table):
        yield _checked(table, rows, partition)
        return
    records = iter(rows)
    while some := _from_records(table, list(islice(records, _RECORDS_AT_ONCE)), TABLES[table]):
        yield _checked(table, some, partition)


def _checked(table: str, rows: pa.Table, partition: Mapping[str, str | int]) -> pa.Table:
    import pyarrow.compute as pc  # slow to import, and readers need none of it

    schema = TABLES[table]
    content = conform(table, rows, schema)
    for name, value in partition.items():
        others = content.filter(pc.not_equal(content[name], pa.scalar(value, schema.field(name).type)))
        if others.num_rows:
            raise ValueError(
                f"{table}.{name}: the partition says {value!r}, but a row says {others[name][0].as_py()!r}; "
                "every row of a file has its partition's values"
            )
    return content


def conform(table: str, content: pa.Table, schema: pa.Schema) -> pa.Table:
    """Convert a table to the columns, order and types of a schema; a nullable column that it lacks becomes null.

    Raises:
        ValueError: An unknown column, a value of a wrong type, or a missing value.
    """
    _check_known(table, content.column_names, schema)
    columns = []
    for field in schema:
        if field.name not in content.column_names:
            column = pa.nulls(content.num_rows, field.type)
        else:
            column = _converted(table, field, lambda field=field: content[field.name].cast(field.type))
        if not field.nullable and column.null_count:
            raise ValueError(f"{table}.{field.name}: {column.null_count} rows have no value, and it needs one")
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def _from_records(table: str, records: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    _check_known(table, dict.fromkeys(name for record in records for name in record), schema)
    columns = {
        field.name: _converted(
            table, field, lambda field=field: _array([record.get(field.name) for record in records], field)
        )
        for field in schema
    }
    return pa.table(columns)


def _array(values: list[Any], field: pa.Field) -> pa.Array:
    if pa.types.is_integer(field.type):  # Arrow would drop the fraction silently
        fraction = next((value for value in values if isinstance(value, float) and not value.is_integer()), None)
        if fraction is not None:
            raise pa.ArrowInvalid(f"{fraction} is not a whole number")
    return pa.array(values, field.type)


def _converted(table: str, field: pa.Field, convert: Any) -> Any:
    try:
        return convert()
    except _TYPE_ERRORS as error:
        raise ValueError(f"{table}.{field.name}: a value is not of type {field.type}: {error}") from error


def _check_known(table: str, names: Any, schema: pa.Schema) -> None:
    unknown = [name for name in names if name not in schema.names]
    if unknown:
        raise ValueError(f"{table}: unknown column {unknown[0]!r}; its columns are {', '.join(schema.names)}")
