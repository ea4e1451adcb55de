"""Longer texts: asked in a length of their own, never scored, and compared with references."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from overedit.editing.metrics import TfIdf
from overedit.editing.requests import EditRequest
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DatasetOptions, FileColumns
from overedit.tasks.engine.base import Generation, Score
from overedit.tasks.evaluation.options import EvaluationOptions
from overedit.tasks.evaluation.outcomes import PreEdit
from overedit.tasks.evaluation.probing import evaluate_checkpoint, unanswered

CASES = [
    EditRequest(
        case_id="ann",
        prompt="Ann works in",
        target_new="Rome",
        text_prompts=("Ann's job is", "Ann works in", "Ann says"),
        references=("Rome is a city of fountains.", "Romans like fountains."),
    ),
    EditRequest(case_id="bo", prompt="Bo works in", target_new="Oslo", text_prompts=("Bo is",)),
    EditRequest(case_id="cy", prompt="Cy works in", target_new="Bonn", references=("Bonn lies on the Rhine.",)),
]


class Writer:
    """Says how it was asked."""

    kind = "transformers"
    start_seconds = 0.0

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, tuple[str, ...]]] = []

    def generate(self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str]) -> list[Generation]:
        self.asked += [(prompt, max_tokens, tuple(stop)) for prompt in prompts]
        text = "a city. Of fountains" if not stop else "Rome"
        return [Generation(text, max_tokens, "length") for _ in prompts]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        return [Score((1.0,), (1,), (1,)) for _ in pairs]


def ask(engine: Writer, edit_count: int = 3, **options: Any) -> list[dict[str, Any]]:
    chosen = EvaluationOptions(**options)
    return evaluate_checkpoint(engine, CASES, edit_count, chosen).rows  # type: ignore[arg-type]


def test_nothing_longer_is_asked_unless_it_is_named() -> None:
    assert not [row for row in ask(Writer()) if row["probe"] == "text"]


def test_longer_texts_have_their_own_length_and_no_stop() -> None:
    engine = Writer()
    rows = ask(engine, probes=("edit", "text"), text_tokens=50, max_text=2)
    short, long = (32, (".", "\n")), (50, ())
    assert set(engine.asked) == {
        *((request.prompt, *short) for request in CASES),
        *((prompt, *long) for prompt in ("Ann's job is", "Ann works in", "Bo is")),
    }
    texts = [row for row in rows if row["probe"] == "text"]
    assert [(row["case_id"], row["probe_index"], row["protocol"]) for row in texts] == [
        ("ann", 0, "generated"),
        ("ann", 1, "generated"),
        ("bo", 0, "generated"),
    ]
    for row in texts:
        assert (row["output"], row["stop"], row["max_tokens"]) == ("a city. Of fountains", [], 50)
        assert (row["score"], row["target"]) == (None, None)
        assert "score: no answer is right" in row["reason"]
    edits = [row for row in rows if row["probe"] == "edit" and row["protocol"] == "generated"]
    assert [(row["output"], row["stop"], row["max_tokens"]) for row in edits] == [("Rome", [".", "\n"], 32)] * 3


def test_similarity_is_with_the_references_of_the_case() -> None:
    rows = ask(Writer(), probes=("text",))
    learnt = TfIdf.of(text for case in CASES for text in case.references)
    expected = learnt.similarity("a city. Of fountains", CASES[0].references)
    assert expected is not None
    assert 0 < expected < 1
    assert [row["similarity"] for row in rows] == [pytest.approx(expected)] * 3 + [None]
    # what counts as rare does not depend on how many are edited
    assert ask(Writer(), 1, probes=("text",))[0]["similarity"] == pytest.approx(expected)


def test_they_agree_with_what_was_written_before_editing() -> None:
    options = EvaluationOptions(probes=("text",), max_text=1)
    before = evaluate_checkpoint(Writer(), CASES, 0, options).rows  # type: ignore[arg-type]
    after = evaluate_checkpoint(Writer(), CASES, 3, options, pre_edit=PreEdit.of(before)).rows  # type: ignore[arg-type]
    assert [row["agreement"] for row in after] == [1.0, 1.0]


def test_weights_that_are_not_numbers_are_not_asked() -> None:
    rows = unanswered(CASES, 3, EvaluationOptions(probes=("text",), max_text=1), "broken")
    assert [(row["protocol"], row["output"], row["reason"]) for row in rows] == [("generated", None, "broken")] * 2


def test_a_file_may_hold_beginnings_and_references(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {
        "prompt": "Ann works in",
        "target_new": "Rome",
        "begin": ["Ann is", "Ann says"],
        "references": "Rome is old.",
    }
    path.write_text(json.dumps(row))
    options = DatasetOptions(name="file", path=path, columns=FileColumns(text_prompts="begin"))
    (request,) = load_requests(options)[0]
    assert (request.text_prompts, request.references) == (("Ann is", "Ann says"), ("Rome is old.",))
    with pytest.raises(ValueError, match="'snippets'"):
        load_requests(options.model_copy(update={"columns": FileColumns(references="snippets")}))
