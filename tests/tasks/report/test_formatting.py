"""Results of queries as CSV, as JSON and as a table."""

from __future__ import annotations

import csv
import io
import json

import pyarrow as pa
import pytest

from overedit.tasks.report.formatting import format_rows

RESULT = pa.table(
    {
        "name": ["a,b", "<b>[red]"],
        "value": [1 / 3, None],
        "edits": [12345, 1],
        "odd": [float("inf"), float("nan")],
    }
)


def test_results_as_csv_keep_their_precision() -> None:
    read = list(csv.DictReader(io.StringIO(format_rows(RESULT, "csv"))))
    assert [row["name"] for row in read] == ["a,b", "<b>[red]"]
    assert float(read[0]["value"]) == 1 / 3 and read[1]["value"] == "" and read[0]["edits"] == "12345"


def test_results_as_json_are_json() -> None:
    read = json.loads(format_rows(RESULT, "json"), parse_constant=pytest.fail)
    assert read[0] == {"name": "a,b", "value": 1 / 3, "edits": 12345, "odd": "Infinity"}
    assert read[1] == {"name": "<b>[red]", "value": None, "edits": 1, "odd": "NaN"}


def test_results_as_a_table_are_rounded_and_fit_the_terminal() -> None:
    text = format_rows(RESULT, "table", width=60)
    assert "0.3333" in text and "12,345" in text and "<b>[red]" in text and "2 rows" in text
    wide = pa.table({f"column_{i}": ["some text"] for i in range(20)})
    text = format_rows(wide, "table", width=60)
    assert max(map(len, text.splitlines())) <= 60
    assert text.count("some text") == 20
    empty = format_rows(wide.slice(0, 0), "table", width=60)
    assert "0 rows" in empty and all(name in empty for name in wide.column_names), "no name is cut off"


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format: 'xml' is unknown; choose one of table, csv, json"):
        format_rows(RESULT, "xml")
