"""Results of queries as text: tables for a terminal, CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

FORMATS = ("table", "csv", "json")


def format_rows(table: pa.Table, format: str = "table", *, width: int | None = None) -> str:
    """Format the result of a query.

    Args:
        table: The result of `Warehouse.query`.
        format: `table` for people (rounded numbers; one record below the other if the columns do not fit), or `csv` or
            `json` for programs (full precision; JSON has no number for NaN and infinity, which become the texts "NaN"
            and "Infinity").
        width: Width in characters; None for the width of the terminal.

    Raises:
        ValueError: An unknown format.
    """
    if format == "csv":
        return _as_csv(table)
    if format == "json":
        return json.dumps([{k: _json_value(v) for k, v in row.items()} for row in table.to_pylist()], indent=1)
    if format == "table":
        return _as_table(table, width)
    raise ValueError(f"format: {format!r} is unknown; choose one of {', '.join(FORMATS)}")


def shown_bracket(row: Mapping[str, Any]) -> str:
    """The answer of a search for the collapse: "610 (560 to 640)"; of a row of `collapse_point` or `leaderboard`."""
    if row["collapse_at"] is None:
        return f"{row['takes']:,} or more"
    return f"{row['takes']:,} ({row['last_good']:,} to {row['collapse_at']:,})"


def rounded(value: Any) -> str:
    """A value for people: four significant digits, commas between thousands, nothing for null."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if math.isfinite(value) and abs(value) >= 1e4 else f"{value:.4g}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return str(value)


def _as_csv(table: pa.Table) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return stream.getvalue().rstrip("\n")


def _as_table(table: pa.Table, width: int | None) -> str:
    console = Console(width=width, file=io.StringIO())
    names = table.column_names
    is_number = [pa.types.is_integer(field.type) or pa.types.is_floating(field.type) for field in table.schema]
    rows = [[rounded(value) for value in row.values()] for row in table.to_pylist()]
    needed_width = sum(3 + max([len(name), *(len(row[i]) for row in rows)]) for i, name in enumerate(names)) + 1
    if needed_width <= console.width:
        shown = Table(*names)
        for column, right in zip(shown.columns, is_number, strict=True):
            column.justify = "right" if right else "left"
        for row in rows:
            shown.add_row(*map(Text, row))
    else:  # one record below the other
        shown = Table("column", "value", show_header=False)
        for row in rows or [[""] * len(names)]:  # without a record: the names of the columns
            for name, value in zip(names, row, strict=True):
                shown.add_row(Text(name), Text(value))
            shown.add_section()
    shown.caption = f"{len(rows):,} row{'' if len(rows) == 1 else 's'}"
    shown.caption_justify = "left"
    with console.capture() as capture:
        console.print(shown)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [_json_value(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else rounded(value)


def markdown_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: Collection[int] = (0,)
) -> str:
    """A Markdown table; columns that are not in `text_columns` are numbers, aligned right."""
    rules = ["---" if index in text_columns else "---:" for index in range(len(headings))]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [list(headings), rules, *cells])
