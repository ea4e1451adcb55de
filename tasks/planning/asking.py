"""What measuring checkpoints takes: how many prompts, pairs, texts and items are asked, and their operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from overedit.editing.model.shape import ModelShape
from overedit.editing.requests import EditRequest
from overedit.tasks.evaluation.options import EvaluationOptions
from overedit.tasks.evaluation.questions import (
    pairs_of,
    positions_asked,
    prompts_of,
    protocols_of,
    questions_of,
    sampled_positions,
)

ITEM_TOKENS = 200
"""Assumed tokens of an item of a general benchmark: its examples, question and choices, each read once."""


class CaseQuestions(NamedTuple):
    """What is asked of one case: means over a sample of the requests."""

    prompts: float
    """Prompts to continue."""
    pairs: float
    """Prompts with an answer to score."""
    rows: float
    """Rows of the table `outcomes`."""
    new_tokens: float
    """The most tokens generated after a prompt."""


class Asked(NamedTuple):
    """What is asked in a run, by stage of the costs."""

    generate: float = 0
    score: float = 0
    perplexity: float = 0
    capability: float = 0
    swap: int = 0
    """Checkpoints whose weights are written into the engine."""
    engine_start: int = 1
    rows: float = 0
    """Rows of the table `outcomes`."""


class Measures(NamedTuple):
    """What is measured at a checkpoint."""

    case: CaseQuestions
    sample: int | None
    """The most cases asked."""
    num_texts: int
    """Texts of the perplexity."""
    num_items: int
    """Items of the general benchmarks."""
    when: Literal["every", "gated", "last", "never"]
    """At which checkpoints general benchmarks run; `gated` is counted as `every`."""


def case_questions(requests: Sequence[EditRequest], options: EvaluationOptions) -> CaseQuestions:
    """Count what is asked of each of these requests; those of other requests are taken to be like them."""
    questions = list(questions_of(requests, len(requests), range(1, len(requests) + 1), options))
    prompts = prompts_of(questions, options)
    num_prompts = sum(map(len, prompts.values()))
    new = sum(how.max_tokens * len(some) for how, some in prompts.items())
    pairs = {pair for question in questions for pair in pairs_of(question, options)}
    rows = sum(len(protocols_of(question.probe, options)) for question in questions)
    number = len(requests)
    return CaseQuestions(num_prompts / number, len(pairs) / number, rows / number, new / max(num_prompts, 1))


def asked_in_run(measures: Measures, counts: Sequence[int], *, num_methods: int, num_orders: int) -> Asked:
    """What is asked at all checkpoints of a run, the pristine model of each order included.

    The pristine model is asked all cases that are asked at any count.
    """
    cases = num_orders * len(positions_asked(counts, measures.sample))
    cases += num_orders * num_methods * sum(len(sampled_positions(count, measures.sample)) for count in counts)
    checkpoints = num_orders * num_methods * len(counts)
    general = {"every": checkpoints, "gated": checkpoints, "last": num_orders * num_methods, "never": -num_orders}
    return Asked(
        generate=cases * measures.case.prompts,
        score=cases * measures.case.pairs,
        perplexity=(num_orders + checkpoints) * measures.num_texts,
        capability=(num_orders + general[measures.when]) * measures.num_items,
        swap=checkpoints,
        rows=cases * measures.case.rows,
    )


def item_operations(
    shape: ModelShape, *, prompt_tokens: float, target_tokens: float, new_tokens: float, text_tokens: float
) -> dict[str, float]:
    """Stage -> operations of one item, all tokens computed once and the head at each that is read."""
    score = shape.forward(prompt_tokens + target_tokens) + shape.head(prompt_tokens + target_tokens)
    return {
        "generate": shape.forward(prompt_tokens + new_tokens) + shape.head(new_tokens),
        "score": score,
        "perplexity": shape.forward(text_tokens) + shape.head(text_tokens),
        "capability": shape.forward(ITEM_TOKENS) + shape.head(ITEM_TOKENS),
    }
