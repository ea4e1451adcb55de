"""docs/warehouse.md describes every column of every table and view, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from overedit.tasks.warehouse.columns import TABLES_IN_WORDS, Column
from overedit.tasks.warehouse.tables import TABLES
from overedit.tasks.warehouse.views import view_names
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.docs.warehouse import described, page


def documented(text: str) -> dict[str, list[str]]:
    """Table or view -> the columns that the page names for it."""
    sections = re.split(r"^### `(\w+)`\n", text, flags=re.MULTILINE)
    found = {}
    for name, section in zip(sections[1::2], sections[2::2], strict=True):
        identity = re.search(r"^Identity: (.*)\.$", section, re.MULTILINE)
        found[name] = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        found[name] += re.findall(r"`(\w+)`", identity[1]) if identity else []
    return found


def test_the_page_has_the_columns_of_an_empty_warehouse_and_no_others(repository: Path, tmp_path: Path) -> None:
    found = documented((repository / "docs" / "warehouse.md").read_text())
    with Warehouse(tmp_path).connect() as connection:
        names = [*TABLES, *view_names(), "outcome_sums"]
        real = {name: [row[0] for row in connection.execute(f"DESCRIBE {name}").fetchall()] for name in names}
    assert found.keys() == real.keys()
    for name, columns in real.items():
        assert sorted(found[name]) == sorted(columns), name


def test_the_page_is_what_make_docs_makes(repository: Path) -> None:
    assert (repository / "docs" / "warehouse.md").read_text() == page(), "make docs"


def test_a_column_that_is_not_described_and_one_that_does_not_exist_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    words = TABLES_IN_WORDS["costs"]
    fewer = {name: text for name, text in words.columns.items() if name != "stage"}
    more = words.columns | {"hours": Column("duration")}
    for columns, name in ((fewer, "stage"), (more, "hours")):
        monkeypatch.setitem(TABLES_IN_WORDS, "costs", words._replace(columns=columns))
        with pytest.raises(ValueError, match=rf"costs: tables\.py and columns\.py differ in {name}"):
            page()
    monkeypatch.undo()
    from tests.docs import warehouse

    sql = "-- Of nothing.\n--\n-- {}  what it is\nSELECT 1"
    for column, said in (("absent", "describes absent, which"), ("run", r"says nothing of it; add a line `-- value ")):
        text = sql.format(f"{column}, value" if column == "absent" else column)
        monkeypatch.setattr(warehouse, "view_sql", lambda name, text=text: text)
        with pytest.raises(ValueError, match=said):
            warehouse._view("costly", {"value": "DOUBLE"} | ({} if column == "absent" else {"run": "VARCHAR"}))


def test_a_comment_is_parsed() -> None:
    sql = """\
-- What it shows.
-- In two lines.
--
-- kind      one   the first
--           two   the second, which is
--                 long
-- n         cases; num_failed: those that failed; because: a word
-- low, high  interval
--
-- A note.
SELECT 1 -- no comment
"""
    found = described(sql, ["kind", "n", "num_failed", "low", "high"])
    assert found.summary == "What it shows. In two lines."
    assert found.notes == ["A note."]
    assert found.columns == {
        "kind": "one: the first<br>two: the second, which is long",
        "n": "cases",
        "num_failed": "those that failed; because: a word",
        "low": "low, high: interval",
        "high": "low, high: interval",
    }
