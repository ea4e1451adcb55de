"""Duplicates and conflicting edits."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from overedit.editing.metrics import prompt_key
from overedit.editing.requests import EditRequest
from overedit.tasks.data.deduplication import deduplicate, find_overwritten
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DatasetOptions
from tests.support.dataset_rows import asked, edit, mquake, read, written


def test_a_dropped_duplicate_leaves_its_questions(tmp_path: Path) -> None:
    cases = [
        mquake(1, "a=1", "b=1"),
        mquake(2, "c=1", "a=1"),  # its last edit is there already: its first one is the newest that it needs
        mquake(3, "d=1"),
        mquake(4, "c=1", "a=1"),  # both are there
        mquake(5, "a=1", "e=1"),
    ]
    requests, report = load_requests(
        DatasetOptions(name="mquake", path=written(tmp_path, cases), order_seed=None, conflicts="error")
    )
    assert asked(tuple(requests)) == {"1.1": [], "1.2": ["q1"], "2.1": ["q2", "q4"], "3.1": ["q3"], "5.2": ["q5"]}
    assert report.deduplicated.duplicates == (("2.2", "1.1"), ("4.1", "2.1"), ("4.2", "1.1"), ("5.1", "1.1"))


def test_questions_on_a_fact_that_was_not_taken_are_not_asked(tmp_path: Path) -> None:
    path = written(tmp_path, [mquake(1, "a=1"), mquake(2, "a=2", "b=1"), mquake(3, "c=1", "a=3"), mquake(4, "a=4")])
    assert asked(read(path, "mquake", conflicts="first")) == {"1.1": ["q1"], "2.2": [], "3.1": []}
    assert asked(read(path, "mquake")) == {
        "1.1": ["q1"], "2.1": [], "2.2": ["q2"], "3.1": [], "3.2": ["q3"], "4.1": ["q4"],
    }  # fmt: skip


def test_duplicates_and_conflicts_are_reported(tmp_path: Path) -> None:
    rows = [("p", "x", "1"), ("q", "x", "2"), ("p ", "x", "3"), ("p", "y", "4"), ("q", "z", "5"), ("p", "x", "6")]
    path = written(tmp_path, [edit(*row) for row in rows])
    requests, report = load_requests(DatasetOptions(name="file", path=path, order_seed=None))
    assert [request.case_id for request in requests] == ["1", "2", "4", "5", "6"]
    assert report.deduplicated.duplicates == (("3", "1"),)
    assert [(c.prompt, c.cases, c.winner) for c in report.deduplicated.conflicts] == [
        ("p", (("1", "x"), ("4", "y"), ("6", "x")), "6"),
        ("q", (("2", "x"), ("5", "z")), "5"),
    ]
    assert report.deduplicated.overwritten == {"1": "4", "4": "6", "2": "5"}
    assert report.deduplicated.ceiling == pytest.approx(3 / 5)  # 1 and 6 ask the same; 4 and 2 are lost
    text = "\n".join(report.lines())
    assert "5 edits of 6 rows" in text
    assert "1 duplicates left out" in text
    assert "'p': 'x' (1), 'y' (4), 'x' (6); 6 wins" in text
    assert "cannot exceed 60.00%" in text


def test_conflicts_may_keep_the_first_or_stop(tmp_path: Path) -> None:
    path = written(tmp_path, [edit("p", "x", "1"), edit("p", "y", "2"), edit("p", "y", "3"), edit("q", "z", "4")])
    requests, report = load_requests(DatasetOptions(name="file", path=path, order_seed=None, conflicts="first"))
    assert [request.case_id for request in requests] == ["1", "4"]
    assert report.deduplicated.left_out == ("2", "3")
    assert report.deduplicated.conflicts[0].winner == "1"
    assert (report.deduplicated.overwritten, report.deduplicated.ceiling) == ({}, 1.0)
    with pytest.raises(ValueError, match=r"1 prompts have conflicting targets.*'x' \(1\), 'y' \(2\)"):
        read(path, conflicts="error")


@pytest.mark.parametrize("rule", ["last", "first"])
@pytest.mark.parametrize("seed", range(5))
def test_settling_is_what_a_list_of_all_edits_would_give(rule: Any, seed: int) -> None:
    draw = random.Random(seed)
    found = [
        EditRequest(
            case_id=str(i), prompt=draw.choice(["p", "q", "q ", "r", *"abcdefgh"]), target_new=draw.choice("xyz")
        )
        for i in range(40)
    ]
    for limit in (None, 12):
        settled = deduplicate([(request,) for request in found], limit=limit, rule=rule)
        kept, seen = settled_in_memory(found, limit, rule)
        assert list(settled.requests) == kept
        same = {prompt: [r for r in seen if prompt_key(r.prompt) == prompt] for prompt in map(prompt_key, of(seen))}
        rivals = {prompt: some for prompt, some in same.items() if len(some) > 1}
        assert [[case for case, _ in c.cases] for c in settled.conflicts] == [
            [r.case_id for r in some] for some in rivals.values()
        ]
        last = {prompt_key(r.prompt): r for r in kept}
        assert [c.winner for c in settled.conflicts] == [last[prompt].case_id for prompt in rivals]
        num_met = sum(last[prompt_key(r.prompt)].target_new == r.target_new for r in kept)
        assert settled.ceiling == pytest.approx(num_met / len(kept))
        assert dict(settled.overwritten) == find_overwritten(kept)
        assert settled.left_out == tuple(r.case_id for r in seen if r not in kept)


def of(requests: list[EditRequest]) -> list[str]:
    return [request.prompt for request in requests]


def settled_in_memory(
    found: list[EditRequest], limit: int | None, rule: str
) -> tuple[list[EditRequest], list[EditRequest]]:
    """The edits, and all that are no duplicates of the edit that holds at their point."""
    kept: list[EditRequest] = []
    seen: list[EditRequest] = []
    for request in found:
        if len(kept) == limit:
            break
        before = [other for other in kept if prompt_key(other.prompt) == prompt_key(request.prompt)]
        if before and before[-1].target_new == request.target_new:
            continue
        seen.append(request)
        if not before or rule == "last":
            kept.append(request)
    return kept, seen


def test_find_overwritten_looks_past_repetitions() -> None:
    requests = [
        EditRequest(case_id=c, prompt="p", target_new=t) for c, t in (("1", "x"), ("2", "x"), ("3", "y"), ("4", "y"))
    ]
    assert find_overwritten(requests) == {"1": "3", "2": "3"}
