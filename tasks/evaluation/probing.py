"""Probes a checkpoint: every case edited so far, each of its probes, under each protocol.

Prompts are given to the model raw, without a chat template, and continued greedily (the protocol of the WILD framework,
Yang et al. 2025, "The Mirage of Model Editing"). Three protocols, never mixed in one column:

- `generated`: free greedy text until a stop string; score = exact match after SQuAD normalisation; agreement = the
  normalised text is the pre-edit one.
- `teacher_forced`: the target is given token by token; score = share of its tokens that are the model's greedy choice;
  agreement = share of positions with the pre-edit greedy token.
- `probability`: two answers are compared by their mean NLL per token, as ROME and MEMIT do; score = the right one is
  more likely; agreement = the same one is preferred as before editing.

Longer texts (the probe `text`, asked only if it is named) are generated with their own length limit and no stop string.
They have no right answer; each row has the text's similarity to the case's references.

The right answer is `target_new` for the probes `edit`, `rephrase` and `persona` (compared with `target_true`) and the
gold answer for `locality` (compared with `target_new`) and `portability` (compared with nothing). What cannot be
scored is null, with a reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from overedit.editing.methods.base import Progress, silent
from overedit.editing.metrics import TfIdf
from overedit.editing.requests import EditRequest
from overedit.tasks.engine.base import Engine, Generation, Score
from overedit.tasks.evaluation.options import EvaluationOptions
from overedit.tasks.evaluation.outcomes import (
    NO_PRE_EDIT,
    PreEdit,
    outcome_row,
    question_key,
    unanswered_row,
    with_agreement,
)
from overedit.tasks.evaluation.questions import (
    GenerationSettings,
    Question,
    asking_stages,
    pairs_of,
    positions_asked,
    prompts_of,
    protocols_of,
    questions_of,
    settings_of,
)

_CHUNK = 2048  # prompts per call of the engine, so that progress is shown in between

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class StageCost(NamedTuple):
    """The cost of the engine's calls."""

    stage: str
    """`generate` or `score`, as in the table `costs`."""
    seconds: float
    num_items: int


class EvaluationResult(NamedTuple):
    """Rows of the table `outcomes` without the identity columns, and the costs."""

    rows: list[dict[str, Any]]
    costs: list[StageCost]


def evaluate_checkpoint(
    engine: Engine,
    requests: Sequence[EditRequest],
    edit_count: int,
    options: EvaluationOptions,
    *,
    pre_edit: PreEdit | None = None,
    edit_counts: Sequence[int] = (),
    asked_before: Sequence[int] = (),
    progress: Progress = silent,
) -> EvaluationResult:
    """Ask the engine, which holds the checkpoint's weights, about the cases edited so far.

    At edit count 0, the pristine model, it asks whatever any of the run's checkpoints will ask: `PreEdit.of` takes
    these rows, and their own agreement is 1. A case is asked but not scored if a later edit that is already applied
    gave its prompt another target; likewise a probe whose prompt was itself edited to another answer.

    Args:
        engine: Holds the weights of the checkpoint.
        requests: The planned edits in order of editing, at least `edit_count`.
        edit_count: Edits applied to the weights.
        options: Which cases and probes, and how.
        pre_edit: The pristine model's answers; without them agreement is null.
        edit_counts: Edit counts of the run's checkpoints; without them the pristine model is asked about all requests.
        asked_before: Edit counts for which the pristine model has been asked already.
        progress: Called with (done, total) calls of the engine.

    Raises:
        ValueError: `edit_count` is negative or more than there are requests.
    """
    if not 0 <= edit_count <= len(requests):
        raise ValueError(f"edit_count: {edit_count} is not between 0 and the {len(requests)} planned edits")
    stops = [edit_count] if edit_count else edit_counts
    positions = positions_asked(stops, options.sample) if stops else range(1, len(requests) + 1)
    if asked_before:
        others = set(positions_asked(asked_before, options.sample))
        positions = [position for position in positions if position not in others]
    asked = list(questions_of(requests, edit_count, positions, options))
    answers = _answers_of(engine, asked, options, progress)
    likeness = _likeness(requests, options)
    rows = []
    for question in asked:
        for protocol in protocols_of(question.probe, options):
            settings = settings_of(question.probe, options)
            row = outcome_row(protocol, question, answers.generations, answers.scores, settings)
            if question.probe == "text":
                row["similarity"] = likeness.similarity(row["output"], requests[question.position - 1].references)
            known = PreEdit.of([row]) if edit_count == 0 else pre_edit or NO_PRE_EDIT
            before = known.answers.get(question_key(row))
            rows.append(with_agreement(row, question, before))
    return EvaluationResult(rows, [cost for cost in answers.costs if cost.stage in asking_stages(options)])


class _Answers(NamedTuple):
    """What the engine said."""

    generations: dict[tuple[str, GenerationSettings], Generation]
    """(prompt, settings) -> the text."""
    scores: dict[tuple[str, str], Score]
    """(prompt, continuation) -> its likelihood."""
    costs: tuple[StageCost, StageCost]


def _answers_of(engine: Engine, asked: Sequence[Question], options: EvaluationOptions, progress: Progress) -> _Answers:
    """Ask the engine every prompt and every pair of the questions once."""
    prompts = prompts_of(asked, options)
    pairs = list(dict.fromkeys(pair for question in asked for pair in pairs_of(question, options)))
    num_prompts = sum(map(len, prompts.values()))
    total = num_prompts + len(pairs)
    begun = time.perf_counter()
    generations: dict[tuple[str, GenerationSettings], Generation] = {}
    for how, some in prompts.items():
        generate = partial(engine.generate, max_tokens=how.max_tokens, stop=how.stop)
        texts = _ask(generate, some, partial(_advance, progress, len(generations), total))
        generations |= {(prompt, how): text for prompt, text in texts.items()}
    middle = time.perf_counter()
    scores = _ask(engine.score, pairs, partial(_advance, progress, num_prompts, total))
    seconds = middle - begun, time.perf_counter() - middle
    costs = StageCost("generate", seconds[0], num_prompts), StageCost("score", seconds[1], len(pairs))
    return _Answers(generations, scores, costs)


def unanswered(
    requests: Sequence[EditRequest], edit_count: int, options: EvaluationOptions, reason: str
) -> list[dict[str, Any]]:
    """Make the rows of a checkpoint that cannot be asked: every question without an answer, with the reason."""
    positions = positions_asked([edit_count], options.sample)
    return [
        unanswered_row(protocol, question, reason)
        for question in questions_of(requests, edit_count, positions, options)
        for protocol in protocols_of(question.probe, options)
    ]


def _likeness(requests: Sequence[EditRequest], options: EvaluationOptions) -> TfIdf:
    """Fit TF-IDF on the references of all planned edits, whichever are asked at this edit count."""
    readers = requests if "text" in options.probes else ()
    return TfIdf.of(text for request in readers for text in request.references)


def _advance(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _ask(
    call: Callable[[list[Item]], list[Answer]], items: list[Item], done: Callable[[int], None]
) -> dict[Item, Answer]:
    answers: dict[Item, Answer] = {}
    for start in range(0, len(items), _CHUNK):
        chunk = items[start : start + _CHUNK]
        answers.update(zip(chunk, call(chunk), strict=True))
        done(start + len(chunk))
    return answers
