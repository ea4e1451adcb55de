"""Local files and the dataset hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DatasetOptions
from tests.support.dataset_rows import edit, read, written


def test_jsonl_parquet_and_jsonl_called_json(tmp_path: Path) -> None:
    rows = [edit("a", "b") | {"rephrase_prompts": ["x"]}, edit("c", "d") | {"rephrase_prompts": ["y", "z"]}]
    lines = "\n\n".join(json.dumps(row) for row in rows) + "\n"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "edits.parquet")
    expected = read(written(tmp_path, rows))
    assert read(written(tmp_path, lines, "edits.jsonl")) == expected
    assert read(written(tmp_path, "\ufeff" + lines, "lines.json")) == expected
    assert read(tmp_path / "edits.parquet") == expected
    assert expected[1].rephrase_prompts == ("y", "z")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("[]", "holds no rows"),
        ('[{"prompt": "a",}]', "is not JSON: .* at line 1, column 1[67]"),
        ('[\n{"prompt": "a"\n"b"}]', "is not JSON: .* at line 3, column 1"),
        ('{"prompt": "a", "target_new": "b"}\n{"prompt": "a" "b"}', "is not JSON: .* at line 2, column 1[67]"),
        ("prompt,target\na,b", "is not JSON: .* at line 1, column 1; .*and CSV with a header in a file named .csv"),
        ('{\n "data": []\n}', "holds one JSON object, not a list of objects"),
        ('"text"', "holds one JSON string"),
        ('[{"prompt": "a", "target_new": "b"}, 3]', "row 2: a JSON number, not an object"),
        ("[" * 100_000, "is not readable JSON"),
    ],
)
def test_bad_files_say_what_is_wrong_and_where(tmp_path: Path, content: Any, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_csv_with_a_header(tmp_path: Path) -> None:
    rows = [edit("a, b", "c"), edit('the "x"', "d\ne") | {"subject": "x"}]
    text = '\ufeffprompt,target_new, subject\r\n"a, b",c,\r\n\r\n"the ""x""","d\ne",x\r\n'
    expected = read(written(tmp_path, rows))
    assert read(written(tmp_path, text, "edits.CSV")) == expected
    tabs = "target_new\tsubject\tprompt\nc\t\ta, b\n" + '"d\ne"\tx\t"the ""x"""\n'
    assert read(written(tmp_path, tabs, "edits.tsv")) == expected
    assert expected[0].subject is None and expected[1].subject == "x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt,target_new\na,b,c\n", r"line 2: 3 values, but the header names 2 columns; a value that contains ','"),
        ("prompt,target_new\n\na\n", "line 3: 1 values"),
        ("prompt,prompt\na,b\n", "line 1: the column 'prompt' occurs twice"),
        ("prompt,,target_new\na,b,c\n", "line 1: a column has no name"),
        ('prompt,target_new\n"a"b,c\n', "is not readable CSV: .* in line 2"),
        ('prompt,target_new\n"a,b', "is not readable CSV: .* in line 2"),
        ("prompt,target_new\na," + "b" * 200_000, "is not readable CSV: field larger than field limit"),
        ("prompt,target_new\n", "holds no rows"),
        ("prompt;target_new\na;b\n", "lacks the column 'prompt'; the columns there are 'prompt;target_new'"),
        ("prompt,target_new\n,b\n", "row 1, column 'prompt': empty"),
        (b"prompt,target_new\na,\xe9\n", "is no CSV: byte 21 is not UTF-8 text"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "edits.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_bad_places_and_kinds_of_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json does not exist"):
        read(tmp_path / "none.json")
    with pytest.raises(ValueError, match="is a folder"):
        read(tmp_path)
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04\x95")
    with pytest.raises(ValueError, match="neither JSON, JSONL nor Parquet: byte 1"):
        read(tmp_path / "model.pkl")
    (tmp_path / "half.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="not a whole Parquet file"):
        read(tmp_path / "half.parquet")


def test_a_hub_out_of_reach_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load_dataset(*args: Any, **options: Any) -> Any:
        raise ConnectionError("Couldn't reach the Hub\nlong trace")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        ValueError, match=r"'XiaojieGu/UltraEditBench' cannot be fetched .*reach the Hub\); name a local"
    ):
        load_requests(DatasetOptions(name="ultraeditbench"))
