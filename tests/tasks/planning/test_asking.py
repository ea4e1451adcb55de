"""What is asked in a run, counted by hand, and by the run itself."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from overedit.editing.model.shape import ModelShape
from overedit.editing.requests import EditRequest, Probe
from overedit.tasks.evaluation.options import EvaluationOptions
from overedit.tasks.planning.asking import CaseQuestions, Measures, asked_in_run, case_questions, item_operations
from tests.support.tiny_models import tiny

REQUESTS = [
    EditRequest(
        case_id=str(i),
        prompt=f"The capital of Land{i} is",
        target_new="Port",
        target_true="Oldtown",
        rephrase_prompts=(f"Land{i} has the capital", f"Land{i} is ruled from"),
        locality=(Probe(prompt=f"The river of Land{i + 50} is", answer="Orm"),),
    )
    for i in range(4)
]


def test_questions_of_a_case() -> None:
    """Four prompts each; three of them have two answers under `probability`, the fourth one and the new one."""
    case = case_questions(REQUESTS, EvaluationOptions(max_tokens=7))
    assert case == CaseQuestions(prompts=4, pairs=8, rows=12, new_tokens=7)
    assert case_questions(REQUESTS, EvaluationOptions(protocols=("teacher_forced",))).prompts == 0


@pytest.mark.parametrize(("when", "items"), [("every", 7 * 50), ("gated", 7 * 50), ("last", 3 * 50), ("never", 0)])
def test_what_a_run_asks(when: str, items: int) -> None:
    """Two methods at three counts; the pristine model is asked all positions that are asked at any count."""
    measures = Measures(CaseQuestions(4, 7, 12, 7), sample=5, num_texts=20, num_items=50, when=when)  # type: ignore[arg-type]
    asked = asked_in_run(measures, (1, 10, 100), num_methods=2, num_orders=1)
    cases = 2 * (1 + 5 + 5) + len({1, 3, 5, 7, 10, 25, 50, 75, 100})
    assert (asked.generate, asked.score, asked.rows) == (4 * cases, 7 * cases, 12 * cases)
    assert (asked.perplexity, asked.capability, asked.swap) == (7 * 20, items, 6)


def test_operations_of_items_are_those_of_their_tokens() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny("llama").config)
    shape = ModelShape.of(model, itemsize=4)
    each = item_operations(shape, prompt_tokens=10, target_tokens=2, new_tokens=0, text_tokens=12)
    assert each["generate"] == shape.forward(10)
    assert each["score"] == each["perplexity"] == shape.forward(12) + shape.head(12)
