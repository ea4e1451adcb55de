"""Makes docs/warehouse.md: every table and view of the warehouse with its columns.

    python -m tests.docs.warehouse docs/warehouse.md      (`make docs`)

Names and types are those of an empty warehouse; meanings and units of a table's columns are in
`tasks/warehouse/columns.py`, those of a view's columns in the comment at the top of its SQL.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from overedit.tasks.warehouse.columns import TABLES_IN_WORDS
from overedit.tasks.warehouse.columns_after import TABLES_AFTER_IN_WORDS
from overedit.tasks.warehouse.identity_columns import IDENTITY, LABEL
from overedit.tasks.warehouse.tables import TABLES
from overedit.tasks.warehouse.views import view_names, view_sql
from overedit.tasks.warehouse.warehouse import Warehouse

IDENTIFYING = IDENTITY | {"label": LABEL}
SUMS = "outcome_sums"
SQL = Path("tasks/warehouse/sql")
INTRODUCTION = """\
# Tables and views of the warehouse

*Made by `make docs` from [`tasks/warehouse/columns.py`](../tasks/warehouse/columns.py) and from the comments of the
[views](../tasks/warehouse/sql/views); a test compares this page with an empty warehouse. Examples: [sql.md](sql.md).*

A table is a folder of Parquet files, `warehouse/<table>/**/*.parquet`; every column is stored in the files, so DuckDB,
polars and pandas read a folder as it is. A view is a query over the tables. Types are DuckDB's. A column of a table
that is marked *required* is never null.

## Columns of identity

Every table of measurements has the first seven, which are never null there, and most views have all eight; two tables
are joined `USING (run, trajectory, order_seed, edit_count)`.

"""

ENTRY = re.compile(r"^([\w*]+(?:, [\w*]+)*) {2,}(.*)$")
"""A line of a comment that begins to describe columns."""
VALUE = re.compile(r"^(\S.*?) {2,}(\S.*)$")
"""The rest of a line, or a line below it, that describes one value of the column."""


class Description(NamedTuple):
    """The comment at the top of a view's SQL."""

    summary: str
    columns: dict[str, str]
    """Column -> its meaning; `*_low` stands for every column of that ending."""
    notes: list[str]
    """Paragraphs about the whole view."""


def described(sql: str, names: list[str]) -> Description:
    """Parse the comment at the top of a view's SQL.

    Args:
        sql: The SQL of the view.
        names: The columns of the view.
    """
    lines = [line.removeprefix("--").removeprefix(" ").rstrip() for line in sql.splitlines()]
    comment = lines[: next(number for number, line in enumerate(sql.splitlines()) if not line.startswith("--"))]
    entries: list[tuple[list[str], str]] = []
    paragraphs: list[list[str]] = [[]]
    in_entry = False
    for line in comment:
        found = ENTRY.match(line)
        if found and any(_is_known(name, names) for name in found[1].split(", ")):
            entries.append((found[1].split(", "), _value(found[2])))
            in_entry = True
        elif in_entry and line.startswith("  "):
            joint = "<br>" if VALUE.match(line.strip()) else " "
            entries[-1] = (entries[-1][0], f"{entries[-1][1]}{joint}{_value(line.strip())}")
        else:
            in_entry = False
            if line:
                paragraphs[-1].append(line)
            else:
                paragraphs.append([])
    columns = {
        name: text if len(inner) == 1 else f"{', '.join(inner)}: {text}"
        for of, all_text in entries
        for inner, text in _split(of, all_text, names)
        for name in inner
    }
    prose = [" ".join(part) for part in paragraphs if part]
    return Description(prose[0], columns, prose[1:])


def _is_known(name: str, names: list[str]) -> bool:
    return name in names or "*" in name


def _value(text: str) -> str:
    found = VALUE.match(text)
    return f"{found[1]}: {found[2]}" if found else text


def _split(of: list[str], text: str, names: list[str]) -> list[tuple[list[str], str]]:
    """An entry, and the further ones in its text: `cases; num_failed: those that failed`."""
    pieces = re.split(r"; ([\w*]+(?:, [\w*]+)*): ", text)
    found = [(of, pieces[0])]
    for inner, part in zip(pieces[1::2], pieces[2::2], strict=True):
        others = inner.split(", ")
        if all(_is_known(name, names) for name in others):
            found.append((others, part))
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]}; {inner}: {part}")
    return found


def meaning(view: str, column: str, names: list[str], comment: Mapping[str, str]) -> str:
    """The meaning of a view's column.

    Args:
        view: The view.
        column: One of its columns.
        names: All of its columns.
        comment: What its comment says of them.

    Raises:
        ValueError: The view's comment says nothing of the column.
    """
    if column in comment:
        return comment[column]
    stem, _, ending = column.rpartition("_")
    if f"*_{ending}" in comment and stem in names:
        return comment[f"*_{ending}"]
    if ending in ("low", "high") and stem in names:
        return f"{'lower' if ending == 'low' else 'upper'} bound of the 95 % interval of {stem}"
    if ending == "n" and stem in names:
        return f"number of items behind {stem}"
    if column in IDENTIFYING:
        return IDENTIFYING[column].meaning
    raise ValueError(
        f"{view}.{column}: the comment at the top of {SQL}/views/{view}.sql says nothing of it; "
        f"add a line `-- {column}  what it is` (two spaces after the name)"
    )


def page() -> str:
    """The text of docs/warehouse.md.

    Raises:
        ValueError: A column is not described, or a description has no column.
    """
    with tempfile.TemporaryDirectory() as folder, Warehouse(folder).connect() as connection:

        def types(name: str) -> dict[str, str]:
            return {row[0]: row[1] for row in connection.execute(f"DESCRIBE {name}").fetchall()}

        of_runs = types("runs")
        identity = [(f"`{name}`", of_runs[name], text.unit, text.meaning) for name, text in IDENTIFYING.items()]
        parts = [INTRODUCTION + _rows(("column", "type", "unit", "meaning"), identity), "## Tables\n"]
        parts += [_table(name, types(name)) for name in TABLES]
        parts += ["## Views\n"]
        parts += [_view(name, types(name)) for name in [*view_names(), SUMS]]
    return "\n".join(parts)


def _table(name: str, types: Mapping[str, str]) -> str:
    words = TABLES_IN_WORDS.get(name) or TABLES_AFTER_IN_WORDS[name]
    if list(words.columns) != list(types):
        differing = sorted(set(words.columns) ^ set(types)) or ["their order"]
        raise ValueError(f"{name}: tables.py and columns.py differ in {', '.join(differing)}")
    identity = [column for column in types if column in IDENTITY]
    if len(identity) < len(IDENTITY):
        identity = []
    rows = [
        (f"`{column}`", types[column], text.unit, "" if TABLES[name].field(column).nullable else "yes", text.meaning)
        for column, text in words.columns.items()
        if column not in identity
    ]
    head = ("column", "type", "unit", "required", "meaning")
    return f"### `{name}`\n\nOne row is {words.row}.\n\n{_identity(identity)}{_rows(head, rows)}"


def _view(name: str, types: Mapping[str, str]) -> str:
    path = SQL / ("" if name == SUMS else "views") / f"{name}.sql"
    comment = described(path.read_text() if name == SUMS else view_sql(name), list(types))
    unknown = [column for column in comment.columns if column not in types and "*" not in column]
    if unknown:
        raise ValueError(f"{path}: its comment describes {', '.join(unknown)}, which the view does not have")
    identity = [column for column in types if column in IDENTIFYING and column not in comment.columns]
    rows = [
        (
            f"`{column}`",
            types[column],
            _unit(column, types[column]),
            meaning(name, column, list(types), comment.columns),
        )
        for column in types
        if column not in identity
    ]
    text = "\n\n".join(_escaped(part) for part in (comment.summary, *comment.notes))
    source = f"The query: [{path.name}](../{path.as_posix()})."
    table = _rows(("column", "type", "unit", "meaning"), rows)
    return f"### `{name}`\n\n{text} {source}\n\n{_identity(identity)}{table}"


def _identity(columns: list[str]) -> str:
    return f"Identity: {', '.join(f'`{column}`' for column in columns)}.\n\n" if columns else ""


def _unit(column: str, kind: str) -> str:
    """The unit that a column's name and type say; values without a unit, and those with one unit a row, have none."""
    units = {"seconds": "seconds", "bytes": "bytes", "tokens": "tokens"}
    if kind == "BIGINT":
        units |= dict.fromkeys(("at", "measured_up_to", "planned_edit_count", "last_good"), "edits")
    return units.get(column) or units.get(column.rpartition("_")[2], "")


def _rows(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *(tuple(_escaped(cell) for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("|  |", "| |").replace("|  |", "| |")


def _escaped(text: str) -> str:
    return re.sub(r"<(?!br>)", "&lt;", text).replace("|", "\\|")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the page of the warehouse's tables and views.")
    parser.add_argument("page", type=Path)
    arguments = parser.parse_args()
    arguments.page.write_text(page())
    print(f"{arguments.page}: {len(TABLES)} tables, {len(view_names()) + 1} views")
