"""Edits that two sets have in common: a search may not see the edits of a benchmark, and a run not those of a search.

Two edits count as the same if they have a prompt in common, phrasings included, or if they are the same case of the
same dataset.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from overedit.editing.metrics import prompt_key
from overedit.editing.requests import EditRequest
from overedit.editing.storage.checksums import digest

_SHOWN = 5
"""Case ids that a message lists."""


class Marks(NamedTuple):
    """What edits are recognized by."""

    edits: frozenset[str]
    """Digests of prompts and cases."""
    subjects: frozenset[str]
    """Subjects in lower case."""


def marks_of(requests: Iterable[EditRequest], dataset: str) -> Marks:
    """The marks of edits.

    Args:
        requests: The edits.
        dataset: The name of their dataset. The case ids of files (`file`) are unique within the file only, so they
            are no marks.
    """
    edits: set[str] = set()
    subjects: set[str] = set()
    for request in requests:
        edits.update(edit_marks(request, dataset))
        if request.subject is not None:
            subjects.add(_subject(request.subject))
    return Marks(frozenset(edits), frozenset(subjects))


def edit_marks(request: EditRequest, dataset: str) -> list[str]:
    """Digests of an edit's prompts, phrasings included, and of its case."""
    prompts = [digest(["prompt", prompt_key(prompt)]) for prompt in (request.prompt, *request.rephrase_prompts)]
    return prompts if dataset == "file" else [*prompts, digest(["case", dataset, request.case_id])]


def among(requests: Iterable[EditRequest], dataset: str, marks: frozenset[str]) -> list[EditRequest]:
    """The edits that have one of these marks."""
    return [request for request in requests if not marks.isdisjoint(edit_marks(request, dataset))]


def not_among(requests: Iterable[EditRequest], dataset: str, marks: frozenset[str]) -> list[EditRequest]:
    """The edits that have none of these marks."""
    return [request for request in requests if marks.isdisjoint(edit_marks(request, dataset))]


def about(requests: Iterable[EditRequest], subjects: Collection[str]) -> list[EditRequest]:
    """The edits about one of these subjects."""
    return [each for each in requests if each.subject is not None and _subject(each.subject) in subjects]


def not_about(requests: Iterable[EditRequest], subjects: Collection[str]) -> list[EditRequest]:
    """The edits about none of these subjects; one without a subject is about none."""
    return [each for each in requests if each.subject is None or _subject(each.subject) not in subjects]


def shown_cases(requests: Sequence[EditRequest]) -> str:
    """The number of edits, and the case ids of the first."""
    cases = ", ".join(request.case_id for request in requests[:_SHOWN])
    return f"{len(requests):,} edits (cases {cases}{', ...' if len(requests) > _SHOWN else ''})"


def _subject(subject: str) -> str:
    return prompt_key(subject).lower()
