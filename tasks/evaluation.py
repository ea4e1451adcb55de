"""What a checkpoint answers: every case edited so far, each of its probes, under each protocol.

Prompts are put to the model raw, without a chat template, and continued greedily (the protocol of the WILD framework,
Yang et al. 2025, "The Mirage of Model Editing"). Three protocols, never mixed in one column:

- `generated`: free greedy text until a stop string; score = exact match after SQuAD normalisation; agreement = the
  normalised text is the pre-edit one.
- `teacher_forced`: the target is given token by token; score = share of its tokens that the model would have put
  itself; agreement = share of places with the pre-edit greedy token.
- `probability`: two answers are compared by their mean NLL per token, as ROME and MEMIT do; score = the right one is
  the likelier; agreement = the same one is preferred as before editing.

Longer texts (the probe `text`, asked only where it is named) are generated with a length of their own and no stop
string; no answer is right there, and beside each text stands how like the case's references it is.

The right answer is `target_new` for the probes `edit`, `rephrase` and `persona` (compared with `target_true`) and the
gold answer for `locality` (compared with `target_new`) and `portability` (compared with nothing). What cannot be scored
is null, with the reason beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from overedit.editing.method import Progress, silent
from overedit.editing.metrics import TfIdf, cut_by_stop, prompt_key
from overedit.editing.requests import EditRequest
from overedit.tasks.engine.base import Engine, Generation
from overedit.tasks.outcomes import (
    NO_PRE_EDIT,
    Asked,
    PreEdit,
    Question,
    outcome_row,
    question_key,
    unanswered_row,
    with_agreement,
)
from overedit.tasks.warehouse.vocabulary import ProbeKind, ProtocolName

_CHUNK = 2048  # prompts handed to the engine at once, so that progress shows

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class EvaluationOptions(BaseModel):
    """Which cases and probes are asked, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    protocols: tuple[ProtocolName, ...] = Field(default=("generated", "teacher_forced", "probability"), min_length=1)
    """How answers are taken: `generated`, `teacher_forced`, `probability`."""
    probes: tuple[ProbeKind, ...] = Field(
        default=("edit", "rephrase", "persona", "locality", "portability"), min_length=1
    )
    """What is asked of each case."""
    sample: int | None = Field(default=None, ge=1)
    """The most cases asked at a checkpoint: the first edited, the last, and evenly between; all where not given."""
    max_tokens: int = Field(default=32, ge=1)
    """The longest generated answer, in tokens."""
    text_tokens: int = Field(default=100, ge=1)
    """The same for the probe `text`, which nothing but the end of the text ends before."""
    stop: tuple[str, ...] = (".", "\n")
    """Strings that end a generated answer; a target that holds one inside cannot be matched (`unreachable_cases`)."""
    max_rephrase: int = Field(default=2, ge=0)
    """The most phrasings asked of a case."""
    max_persona: int = Field(default=1, ge=0)
    """The most voices in which a case is asked."""
    max_locality: int = Field(default=3, ge=0)
    """The most locality prompts asked of a case."""
    max_portability: int = Field(default=1, ge=0)
    """The most portability prompts asked of a case."""
    max_text: int = Field(default=10, ge=0)
    """The most longer texts asked of a case."""


class StageCost(NamedTuple):
    """What asking the engine took."""

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
    progress: Progress = silent,
) -> EvaluationResult:
    """Ask the engine's model, which holds the checkpoint's weights, about the cases edited so far.

    At edit count 0, the pristine model, what any of the run's checkpoints will ask is asked: these rows are what
    `PreEdit.of` takes, and they agree with themselves. A case whose prompt a later edit, applied already, gave another
    target is asked but not scored; nor is a probe whose prompt was itself edited to another answer.

    Args:
        engine: Holds the weights of the checkpoint.
        requests: The planned edits in order of editing, at least `edit_count`.
        edit_count: Edits in the weights.
        options: What is asked.
        pre_edit: The pristine model's answers; without them agreement is null.
        edit_counts: Of the run's checkpoints; without them the pristine model is asked about all requests.
        progress: Called with (done, total) calls of the engine.

    Raises:
        ValueError: `edit_count` is negative or more than there are requests.
    """
    if not 0 <= edit_count <= len(requests):
        raise ValueError(f"edit_count: {edit_count} is not between 0 and the {len(requests)} planned edits")
    stops = [edit_count] if edit_count else edit_counts
    positions = positions_asked(stops, options.sample) if stops else range(1, len(requests) + 1)
    asked = list(_questions(requests, edit_count, positions, options))
    prompts = _prompts(asked, options)
    pairs = list(dict.fromkeys(pair for q in asked for pair in _pairs(q, options)))
    num_prompts = sum(map(len, prompts.values()))
    total = num_prompts + len(pairs)

    begun = time.perf_counter()
    generations: dict[tuple[str, Asked], Generation] = {}
    for how, some in prompts.items():
        generate = partial(engine.generate, max_tokens=how.max_tokens, stop=how.stop)
        texts = _ask(generate, some, partial(_advance, progress, len(generations), total))
        generations |= {(prompt, how): text for prompt, text in texts.items()}
    middle = time.perf_counter()
    scores = _ask(engine.score, pairs, partial(_advance, progress, num_prompts, total))
    ended = time.perf_counter()

    likeness = _likeness(requests, options)
    rows = []
    for question in asked:
        for protocol in _protocols(question.probe, options):
            row = outcome_row(protocol, question, generations, scores, _how(question.probe, options))
            if question.probe == "text":
                row["similarity"] = likeness.similarity(row["output"], requests[question.position - 1].references)
            known = PreEdit.of([row]) if edit_count == 0 else pre_edit or NO_PRE_EDIT
            before = known.answers.get(question_key(row))
            rows.append(with_agreement(row, question, before))
    costs = [StageCost("generate", middle - begun, num_prompts), StageCost("score", ended - middle, len(pairs))]
    return EvaluationResult(rows, [cost for cost in costs if cost.stage in asking_stages(options)])


def asking_stages(options: EvaluationOptions) -> tuple[str, ...]:
    """What the protocols asked for ask of the engine: `generate`, `score` or both; each is a row of the costs."""
    generate = ("generate",) if "generated" in options.protocols else ()
    return (*generate, "score") if set(options.protocols) - {"generated"} else generate


def unanswered(
    requests: Sequence[EditRequest], edit_count: int, options: EvaluationOptions, reason: str
) -> list[dict[str, Any]]:
    """Rows of the table `outcomes` for a checkpoint that cannot be asked: every question, no answer, and why."""
    positions = positions_asked([edit_count], options.sample)
    return [
        unanswered_row(protocol, question, reason)
        for question in _questions(requests, edit_count, positions, options)
        for protocol in _protocols(question.probe, options)
    ]


def sampled_positions(edit_count: int, sample: int | None) -> list[int]:
    """Positions asked at a checkpoint, ascending: all of 1..edit_count, or `sample` of them spread evenly over age.

    The first and the last edit are among them; one alone is the last. The same arguments give the same positions.
    """
    if sample is None or sample >= edit_count:
        return list(range(1, edit_count + 1))
    if sample == 1:
        return [edit_count]
    return [1 + step * (edit_count - 1) // (sample - 1) for step in range(sample)]


def positions_asked(edit_counts: Sequence[int], sample: int | None) -> list[int]:
    """Positions asked at one or more of these edit counts, ascending."""
    return sorted({position for count in edit_counts for position in sampled_positions(count, sample)})


def unreachable_cases(requests: Sequence[EditRequest], options: EvaluationOptions) -> list[str]:
    """Cases whose target holds a stop string inside: under `generated` no model can score there."""
    return [request.case_id for request in requests if cut_by_stop(request.target_new, options.stop)]


def _questions(
    requests: Sequence[EditRequest], edit_count: int, positions: Sequence[int], options: EvaluationOptions
) -> Iterator[Question]:
    asked = {position: requests[position - 1] for position in positions}
    held = _holders(asked.values(), islice(requests, edit_count), options)
    for position, request in asked.items():
        holder = held.get(prompt_key(request.prompt), request)
        lost = f"overwritten by case {holder.case_id}" if holder.target_new != request.target_new else None
        for kind in options.probes:
            for index, (prompt, target, other) in enumerate(_probes_of(request, kind, options)):
                edit = held.get(prompt_key(prompt))
                edited = f"the prompt was edited by case {edit.case_id}" if edit else None
                if kind == "text":
                    no_score, no_agreement = None, None
                elif kind == "locality":
                    no_score, no_agreement = edited, edited
                else:
                    changed = edited if edit and edit.target_new != target else None
                    no_score, no_agreement = lost or changed, None
                yield Question(position, request.case_id, kind, index, prompt, target, other, no_score, no_agreement)


def _holders(
    asked: Collection[EditRequest], edited: Iterable[EditRequest], options: EvaluationOptions
) -> dict[str, EditRequest]:
    """Prompt -> the last edit of it, of those prompts alone that are asked: the edits may be a million."""
    prompts = {prompt_key(request.prompt) for request in asked}
    for kind in options.probes:
        prompts |= {prompt_key(prompt) for request in asked for prompt, _, _ in _probes_of(request, kind, options)}
    return {key: request for request in edited if (key := prompt_key(request.prompt)) in prompts}


def _probes_of(
    request: EditRequest, kind: ProbeKind, options: EvaluationOptions
) -> list[tuple[str, str | None, str | None]]:
    """(prompt, right answer, answer compared with) of each probe of a kind."""
    new, true = request.target_new, request.target_true
    if kind == "edit":
        return [(request.prompt, new, true)]
    if kind == "rephrase":
        return [(prompt, new, true) for prompt in request.rephrase_prompts[: options.max_rephrase]]
    if kind == "persona":
        return [(prompt, new, true) for prompt in request.persona_prompts[: options.max_persona]]
    if kind == "locality":
        return [(probe.prompt, probe.answer or None, new) for probe in request.locality[: options.max_locality]]
    if kind == "text":
        return [(prompt, None, None) for prompt in request.text_prompts[: options.max_text]]
    return [(probe.prompt, probe.answer or None, None) for probe in request.portability[: options.max_portability]]


def _protocols(kind: ProbeKind, options: EvaluationOptions) -> tuple[ProtocolName, ...]:
    """A longer text is generated or is none."""
    return tuple(name for name in options.protocols if kind != "text" or name == "generated")


def _how(kind: ProbeKind, options: EvaluationOptions) -> Asked:
    return Asked(options.text_tokens, ()) if kind == "text" else Asked(options.max_tokens, options.stop)


def _prompts(asked: Collection[Question], options: EvaluationOptions) -> dict[Asked, list[str]]:
    """The prompts to be continued, each once, by how."""
    found: dict[Asked, dict[str, None]] = {}
    for question in asked if "generated" in options.protocols else ():
        found.setdefault(_how(question.probe, options), {})[question.prompt] = None
    return {how: list(prompts) for how, prompts in found.items()}


def _likeness(requests: Sequence[EditRequest], options: EvaluationOptions) -> TfIdf:
    """What tells references apart, learnt from those of all planned edits, whatever is asked at this edit count."""
    readers = requests if "text" in options.probes else ()
    return TfIdf.of(text for request in readers for text in request.references)


def _advance(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _pairs(question: Question, options: EvaluationOptions) -> Iterator[tuple[str, str]]:
    """The (prompt, continuation) pairs that a question needs scored."""
    if question.target is None:
        return
    if "teacher_forced" in options.protocols or "probability" in options.protocols:
        yield question.prompt, question.target
    if "probability" in options.protocols and question.other is not None:
        yield question.prompt, question.other


def _ask(
    call: Callable[[list[Item]], list[Answer]], items: list[Item], done: Callable[[int], None]
) -> dict[Item, Answer]:
    answers: dict[Item, Answer] = {}
    for start in range(0, len(items), _CHUNK):
        chunk = items[start : start + _CHUNK]
        answers.update(zip(chunk, call(chunk), strict=True))
        done(start + len(chunk))
    return answers
