"""The questions for a checkpoint: which cases, which prompts, under which protocols."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from overedit.editing.metrics import cut_by_stop, prompt_key
from overedit.editing.requests import EditRequest
from overedit.tasks.evaluation.options import EvaluationOptions
from overedit.tasks.warehouse.vocabulary import ProbeKind, ProtocolName


def asking_stages(options: EvaluationOptions) -> tuple[str, ...]:
    """The engine calls that the protocols need: `generate`, `score` or both; each is a row of the costs."""
    generate = ("generate",) if "generated" in options.protocols else ()
    return (*generate, "score") if set(options.protocols) - {"generated"} else generate


def sampled_positions(edit_count: int, sample: int | None) -> list[int]:
    """Choose positions asked at a checkpoint, ascending: all of 1..edit_count, or `sample` of them at even distances.

    The first and the last edit are included; a sample of one is the last. The choice is deterministic.
    """
    if sample is None or sample >= edit_count:
        return list(range(1, edit_count + 1))
    if sample == 1:
        return [edit_count]
    return [1 + step * (edit_count - 1) // (sample - 1) for step in range(sample)]


def positions_asked(edit_counts: Sequence[int], sample: int | None) -> list[int]:
    """Positions asked at any of these edit counts, ascending."""
    return sorted({position for count in edit_counts for position in sampled_positions(count, sample)})


def unreachable_cases(requests: Sequence[EditRequest], options: EvaluationOptions) -> list[str]:
    """Cases whose target contains a stop string: under `generated` no model can score there."""
    return [request.case_id for request in requests if cut_by_stop(request.target_new, options.stop)]


def questions_of(
    requests: Sequence[EditRequest], edit_count: int, positions: Sequence[int], options: EvaluationOptions
) -> Iterator[Question]:
    """Yield the questions of a checkpoint, case by case, each with the reason why it cannot be scored, if any.

    Args:
        requests: In the order of editing.
        edit_count: Edits applied so far.
        positions: Positions of the cases that are asked, 1 for the first edit.
        options: Which probes, and how many of each.
    """
    asked = {position: requests[position - 1] for position in positions}
    held = _last_edits(asked.values(), islice(requests, edit_count), options)
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


def _last_edits(
    asked: Collection[EditRequest], edited: Iterable[EditRequest], options: EvaluationOptions
) -> dict[str, EditRequest]:
    """Prompt -> its last edit, only of prompts that are asked, since there may be a million edits."""
    prompts = {prompt_key(request.prompt) for request in asked}
    for kind in options.probes:
        prompts |= {prompt_key(prompt) for request in asked for prompt, _, _ in _probes_of(request, kind, options)}
    return {key: request for request in edited if (key := prompt_key(request.prompt)) in prompts}


def _probes_of(
    request: EditRequest, kind: ProbeKind, options: EvaluationOptions
) -> list[tuple[str, str | None, str | None]]:
    """(prompt, right answer, other answer) of each probe of a kind."""
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


def protocols_of(kind: ProbeKind, options: EvaluationOptions) -> tuple[ProtocolName, ...]:
    """The protocols under which a kind of probe is asked; longer texts are only generated."""
    return tuple(name for name in options.protocols if kind != "text" or name == "generated")


def settings_of(kind: ProbeKind, options: EvaluationOptions) -> GenerationSettings:
    """The length limit and stop strings of a probe's generated answer."""
    return (
        GenerationSettings(options.text_tokens, ())
        if kind == "text"
        else GenerationSettings(options.max_tokens, options.stop)
    )


def prompts_of(asked: Collection[Question], options: EvaluationOptions) -> dict[GenerationSettings, list[str]]:
    """The prompts to continue, each once, grouped by generation settings."""
    found: dict[GenerationSettings, dict[str, None]] = {}
    for question in asked if "generated" in options.protocols else ():
        found.setdefault(settings_of(question.probe, options), {})[question.prompt] = None
    return {how: list(prompts) for how, prompts in found.items()}


def pairs_of(question: Question, options: EvaluationOptions) -> Iterator[tuple[str, str]]:
    """Yield the (prompt, continuation) pairs to score for a question."""
    if question.target is None:
        return
    if "teacher_forced" in options.protocols or "probability" in options.protocols:
        yield question.prompt, question.target
    if "probability" in options.protocols and question.other is not None:
        yield question.prompt, question.other


class Question(NamedTuple):
    """One probe of one case."""

    position: int
    """The case's position in the order of editing, 1 for the first."""
    case_id: str
    probe: ProbeKind
    probe_index: int
    prompt: str
    target: str | None
    other: str | None
    """The answer that the probability protocol compares the target with."""
    no_score: str | None
    """Why there is no score: the target is no longer right at this edit count."""
    no_agreement: str | None
    """Why there is no agreement: the pre-edit answer is no longer comparable."""


class GenerationSettings(NamedTuple):
    """How a text was generated; scoring a stored output under another protocol depends on it."""

    max_tokens: int
    stop: tuple[str, ...]
