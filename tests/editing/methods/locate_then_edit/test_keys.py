"""What is read at the subjects' last tokens: the same as in full passes, and no more kept than is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from overedit.editing.methods.locate_then_edit import keys as subject_rows
from overedit.editing.methods.locate_then_edit.keys import SubjectActivations, at_subjects
from overedit.editing.methods.locate_then_edit.subjects import encode_prompt_sets
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.hooks import traced
from overedit.editing.model.tokenization import MarkedSequence
from tests.support.locate_then_edit import CONTEXTS, requests
from tests.support.teachable_models import byte_tokenizer
from tests.support.tiny_models import tiny


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_neox"])
@pytest.mark.parametrize("max_tokens", [1, 30, 10_000])
def test_rows_at_subjects_are_those_of_a_full_pass(family: str, max_tokens: int) -> None:
    model = tiny(family)
    prompt_sets = encode_prompt_sets(model, byte_tokenizer(), requests(), CONTEXTS)
    marked = [prompt for prompt_set in prompt_sets for prompt in prompt_set.prompts]
    seen = at_subjects(model, marked, outputs_of="1.layer", max_tokens=max_tokens)
    for row, sequence in zip(seen, marked, strict=True):
        hidden = model(torch.tensor([sequence.ids]), output_hidden_states=True).hidden_states[2]
        torch.testing.assert_close(row, hidden[0, sequence.position].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "qwen2_moe"])
def test_keys_are_what_enters_the_projection(family: str) -> None:
    """Also of a shared expert, which is given all tokens of a pass in one row."""
    model = tiny(family)
    prompt_sets = encode_prompt_sets(model, byte_tokenizer(), requests(), CONTEXTS)
    marked = [prompt for prompt_set in prompt_sets for prompt in prompt_set.prompts]
    seen = at_subjects(model, marked, inputs_of="1.down_proj", max_tokens=10_000)
    name = Anatomy.of(model).site_module("1.down_proj")
    for row, sequence in zip(seen, marked, strict=True):
        with traced(model, [name]) as trace, torch.no_grad():
            model(torch.tensor([sequence.ids]))
        torch.testing.assert_close(row, trace.inputs[name].flatten(0, -2)[sequence.position], rtol=1e-4, atol=1e-5)


def test_few_requests_contexts_are_kept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama", dtype=torch.float64)
    prompt_sets = encode_prompt_sets(model, byte_tokenizer(), requests(5), CONTEXTS)
    subjects = SubjectActivations(model, prompt_sets, CONTEXTS, 10_000)
    whole = subjects.keys("1.down_proj")
    assert whole.bare_IN.untyped_storage().nbytes() == whole.bare_IN.nbytes  # not a view of every context's rows
    asked: list[int] = []

    def counted(model: Any, sequences: Sequence[MarkedSequence], **arguments: Any) -> torch.Tensor:
        asked.append(len(sequences))
        return at_subjects(model, sequences, **arguments)

    monkeypatch.setattr(subject_rows, "at_subjects", counted)
    monkeypatch.setattr(subject_rows, "_ROWS_TOGETHER", 7)
    some = subjects.keys("1.down_proj")
    assert asked == [6, 6, 3]
    torch.testing.assert_close(some.mean_IN, whole.mean_IN, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(some.bare_IN, whole.bare_IN, rtol=1e-12, atol=1e-12)
