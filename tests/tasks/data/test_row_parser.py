"""Rows become edit requests; every fault is named by row and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overedit.editing.requests import EditRequest, Probe
from tests.support.dataset_rows import FEVER, KILT_FEVER, MQUAKE, ROME, edit, read, written


def test_own_file_with_named_columns(tmp_path: Path) -> None:
    row = {
        "q": "Capital of {}?",
        "new": "Lyon",
        "who": "france",
        "near": ["Capital of Spain?"],
        "gold": ["Madrid"],
        "p": "x",
    }
    columns = {"prompt": "q", "target_new": "new", "subject": "who", "locality": "near", "locality_answers": "gold"}
    columns |= {"portability": "p", "rephrase_prompts": "p"}
    (request,) = read(written(tmp_path, [row]), columns=columns)
    assert request == EditRequest(
        case_id="row-1",
        prompt="Capital of france?",
        subject="france",
        target_new="Lyon",
        rephrase_prompts=("x",),
        locality=(Probe(prompt="Capital of Spain?", answer="Madrid"),),
        portability=(Probe(prompt="x"),),
    )


def test_own_file_may_hold_the_records_themselves(tmp_path: Path) -> None:
    requests = (
        EditRequest(
            case_id="1", prompt="a", target_new="b", locality=(Probe(prompt="c", answer="d"), Probe(prompt="e"))
        ),
        EditRequest(case_id="2", prompt="f", target_new="g", subject="f", target_true="h", rephrase_prompts=("i", "j")),
        EditRequest(
            case_id="3", prompt="k", target_new="l", persona_prompts=("m",), text_prompts=("n",), references=("o", "p")
        ),
    )
    assert read(written(tmp_path, [request.model_dump() for request in requests])) == requests


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("mquake", MQUAKE | {"requested_rewrite": []}, r"row 2, column 'requested_rewrite': expected a list of obj"),
        ("mquake", MQUAKE | {"requested_rewrite": {"prompt": "x"}}, "column 'requested_rewrite': expected a list"),
        ("mquake", edit("a", "b"), "row 2: lacks the column 'requested_rewrite'"),
        (
            "mquake",
            MQUAKE | {"requested_rewrite": [MQUAKE["requested_rewrite"][0], {"prompt": "x", "subject": "x"}]},
            r"row 2: lacks the column 'requested_rewrite\.1\.target_new\.str'",
        ),
        (
            "mquake",
            MQUAKE | {"requested_rewrite": [{"prompt": 5, "target_new": {"str": "x"}}]},
            r"row 2, column 'requested_rewrite\.0\.prompt': expected a text, found int 5",
        ),
        ("mquake", MQUAKE | {"questions": [7]}, "row 2, column 'questions': expected a text, found int 7"),
        ("fever", {"prompt": "a"}, "row 2: lacks the column 'alt' or 'target_new'"),
        ("fever", {"claim": "a"}, "row 2: lacks the column 'prompt' or 'input'"),
        ("fever", KILT_FEVER | {"alternatives": [3]}, r"row 2, column 'alternatives\.0': expected a text, found int 3"),
        ("hardcf", ROME | {"requested_rewrite": {"prompt": "x"}}, r"lacks the column 'requested_rewrite\.target_new"),
    ],
)
def test_faulty_rows_of_known_datasets(tmp_path: Path, name: str, row: dict[str, Any], message: str) -> None:
    good = {"mquake": MQUAKE | {"case_id": 0}, "fever": FEVER}.get(name, ROME | {"case_id": 0})
    with pytest.raises(ValueError, match=message):
        read(written(tmp_path, [good, row]), name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [edit("a", "b"), {"prompt": "c", "answer": "d"}],
            "row 2: lacks the column 'target_new'; .*'prompt', 'answer'",
        ),
        ([{"question": "c", "target_new": "d"}], "row 1: lacks the column 'prompt'"),
        ([edit("a", "b"), edit("c", "d"), edit("e", "  ")], "row 3, column 'target_new': empty"),
        ([edit("", "b")], "row 1, column 'prompt': empty"),
        ([{"prompt": "a", "target_new": None}], "row 1, column 'target_new': empty"),
        ([{"prompt": "a", "target_new": 1960}], "row 1, column 'target_new': expected a text, found int 1960"),
        (
            [edit("a", "b") | {"subject": {"x": "y" * 99}}],
            r"row 1, column 'subject': expected a text, found dict .*y\.\.\.",
        ),
        ([edit("a", "b") | {"case_id": 1.5}], "row 1, column 'case_id': expected a text or a whole number"),
        ([edit("a", "b", "7"), edit("c", "d"), edit("e", "f", "7")], "row 3: case id '7' is row 1's already"),
        ([edit("a\ud800", "b")], r"row 1, column 'prompt': half a surrogate pair \(U\+D800\) at character 2"),
        ([edit("a", "b\x00")], r"row 1, column 'target_new': a control character \(U\+0000\) at character 2"),
        (
            [edit("a", "b") | {"locality": ["x", "y"], "locality_answers": ["z"]}],
            "1 answers for the 2 prompts in 'locality'",
        ),
        ([edit("a", "b") | {"locality": [{"answer": "x"}]}], "row 1: lacks the column 'locality.prompt'"),
        (
            [edit("a", "b") | {"locality": "x", "locality_answers": 5}],
            "'locality_answers': expected a text, found int 5",
        ),
    ],
)
def test_bad_rows_say_what_is_wrong_and_where(tmp_path: Path, content: Any, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_named_column_must_be_in_every_row(tmp_path: Path) -> None:
    path = written(tmp_path, [edit("a", "b") | {"s": "a"}, edit("c", "d")])
    with pytest.raises(ValueError, match="row 2: lacks the column 's'"):
        read(path, columns={"subject": "s"})
