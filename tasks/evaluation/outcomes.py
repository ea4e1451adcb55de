"""Rows of the table `outcomes`: one question under one protocol, scored against its target and the pre-edit answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from overedit.editing.metrics import exact_match, preferred, same_text, token_accuracy
from overedit.tasks.engine.base import Generation, Score
from overedit.tasks.evaluation.questions import GenerationSettings, Question
from overedit.tasks.warehouse.vocabulary import ProtocolName

Row = dict[str, Any]
Key = tuple[str, str, int, str, str]

_NO_TARGET = "the dataset gives no answer"
_NO_RIGHT_ANSWER = "no answer is right"
_NO_OTHER = "the dataset gives no other answer to compare with"
_SAME_ANSWERS = "the two answers are the same"
_NOT_A_NUMBER = "the model's likelihoods are not numbers"


class PreEditAnswer(NamedTuple):
    """The pristine model's answer to one question; fields of other protocols are None."""

    output: str | None
    greedy_ids: tuple[int, ...] | None
    preference: bool | None


class PreEdit(NamedTuple):
    """The pristine model's answers, with which later answers are compared."""

    answers: Mapping[Key, PreEditAnswer]

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> PreEdit:
        """Read the answers from `outcomes` rows of edit count 0."""
        return cls({question_key(row): _answer(row) for row in rows})


NO_PRE_EDIT = PreEdit({})
"""No answers: the pristine model was not asked."""


def question_key(row: Mapping[str, Any]) -> Key:
    """The key of a question within a checkpoint."""
    return row["case_id"], row["probe"], row["probe_index"], row["protocol"], row["prompt"]


def outcome_row(
    protocol: ProtocolName,
    question: Question,
    generations: Mapping[tuple[str, GenerationSettings], Generation],
    scores: Mapping[tuple[str, str], Score],
    how: GenerationSettings,
) -> Row:
    """Make the row of a question under a protocol, before `with_agreement`; `reason` says why there is no score.

    Args:
        protocol: The protocol.
        question: The question.
        generations: (prompt, generation settings) -> greedy text.
        scores: (prompt, continuation) -> teacher-forced score.
        how: The generation settings of this question.
    """
    row = unanswered_row(protocol, question)
    if protocol == "generated":
        row["stop"], row["max_tokens"] = list(how.stop), how.max_tokens
        score, reason = _generated(row, generations[question.prompt, how], question)
    elif question.target is None:
        score, reason = None, _NO_TARGET
    elif protocol == "teacher_forced":
        score, reason = _teacher_forced(row, scores[question.prompt, question.target])
    else:
        score, reason = _probability(row, question, scores)
    row["score"], row["reason"] = score, reason
    return row


def unanswered_row(protocol: ProtocolName, question: Question, reason: str | None = None) -> Row:
    """Make the row of a question that was not answered, with the reason."""
    return {
        "position": question.position,
        "case_id": question.case_id,
        "probe": question.probe,
        "probe_index": question.probe_index,
        "protocol": protocol,
        "prompt": question.prompt,
        "target": question.target,
        **dict.fromkeys(("output", "num_tokens", "finish_reason", "stop", "max_tokens", "similarity")),
        **dict.fromkeys(("greedy_ids", "target_ids", "nll", "other")),
        **dict.fromkeys(("nll_other", "num_tokens_other", "score", "agreement")),
        "reason": reason,
    }


def with_agreement(row: Row, question: Question, before: PreEditAnswer | None) -> Row:
    """Complete a row: add its agreement with the pre-edit answer in [0, 1], and drop what other edits invalidate.

    Args:
        row: From `outcome_row`.
        question: The question.
        before: The pristine model's answer; None where it was not asked.
    """
    agreement, reason = _agreement(row, before)
    if question.no_agreement is not None:
        agreement, reason = None, question.no_agreement
    reasons = {"score": question.no_score or row["reason"], "agreement": reason}
    texts = [f"{what}: {why}" for what, why in reasons.items() if why is not None]
    score = row["score"] if question.no_score is None else None
    return {**row, "score": score, "agreement": agreement, "reason": "; ".join(texts) or None}


def _generated(row: Row, generation: Generation, question: Question) -> tuple[float | None, str | None]:
    row["output"], row["num_tokens"], row["finish_reason"] = generation
    if question.probe == "text":
        return None, _NO_RIGHT_ANSWER
    if question.target is None:
        return None, _NO_TARGET
    return float(exact_match(generation.text, question.target)), None


def _teacher_forced(row: Row, score: Score) -> tuple[float, None]:
    row["greedy_ids"], row["target_ids"] = list(score.greedy_ids), list(score.target_ids)
    row["num_tokens"] = len(score.target_ids)
    return token_accuracy(score.greedy_ids, score.target_ids), None


def _probability(
    row: Row, question: Question, scores: Mapping[tuple[str, str], Score]
) -> tuple[float | None, str | None]:
    assert question.target is not None
    row["nll"], row["num_tokens"] = _summed(scores[question.prompt, question.target])
    if question.other is None:
        return None, _NO_OTHER
    row["other"] = question.other
    row["nll_other"], row["num_tokens_other"] = _summed(scores[question.prompt, question.other])
    preference = _preference(row)
    if preference is None:
        return None, _SAME_ANSWERS if same_text(question.target, question.other) else _NOT_A_NUMBER
    return float(preference), None


def _summed(score: Score) -> tuple[float, int]:
    return math.fsum(score.token_nlls), len(score.token_nlls)


def _preference(row: Mapping[str, Any]) -> bool | None:
    """Whether the target has the lower mean NLL per token; None where an NLL is missing or the answers are equal."""
    nll, nll_other = row["nll"], row["nll_other"]
    if nll is None or nll_other is None or math.isnan(nll) or math.isnan(nll_other):
        return None
    if same_text(row["target"], row["other"]):
        return None
    return preferred(nll / row["num_tokens"], nll_other / row["num_tokens_other"])


def _answer(row: Mapping[str, Any]) -> PreEditAnswer:
    ids = row["greedy_ids"]
    return PreEditAnswer(row["output"], tuple(ids) if ids is not None else None, _preference(row))


def _agreement(row: Row, before: PreEditAnswer | None) -> tuple[float | None, str | None]:
    """The share of the answer that is as before editing, as the protocol measures it, or why there is none."""
    if before is None:
        return None, "the pristine model was not asked"
    now = _answer(row)
    if now.output is not None and before.output is not None:
        return float(same_text(now.output, before.output)), None
    if now.greedy_ids is not None and before.greedy_ids is not None:
        return token_accuracy(now.greedy_ids, before.greedy_ids), None
    if now.preference is not None and before.preference is not None:
        return float(now.preference == before.preference), None
    return None, row["reason"] or _NOT_A_NUMBER  # the pristine model's likelihoods were NaN
