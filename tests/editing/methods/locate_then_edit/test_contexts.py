"""Sampled context templates: seeded, carried in the state, and whole."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from tokenizers.processors import TemplateProcessing

from overedit.editing.methods.locate_then_edit.contexts import (
    STATE_KEY,
    ContextOptions,
    context_templates,
    sample_texts,
)
from overedit.editing.methods.locate_then_edit.subjects import check_templates
from tests.support.teachable_models import byte_tokenizer
from tests.support.tiny_models import tiny

OPTIONS = ContextOptions(starts=("The", "I"), num_tokens=6, top_k=5)


def test_sampling_follows_its_seed_and_nothing_else() -> None:
    model = tiny("llama")
    before = torch.get_rng_state()
    texts = sample_texts(model, byte_tokenizer(), OPTIONS, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert texts == sample_texts(model, byte_tokenizer(), OPTIONS, seed=1)
    assert texts != sample_texts(model, byte_tokenizer(), OPTIONS, seed=2)
    assert texts != sample_texts(tiny("llama", seed=5), byte_tokenizer(), OPTIONS, seed=1)
    assert [text[: len(start)] for text, start in zip(texts, OPTIONS.starts, strict=True)] == list(OPTIONS.starts)


def test_only_the_likeliest_tokens_are_drawn() -> None:
    model, tokenizer = tiny("llama"), byte_tokenizer()
    (text,) = sample_texts(model, tokenizer, ContextOptions(starts=("A",), num_tokens=1, top_k=1), seed=1)
    ids = tokenizer("A")["input_ids"]
    logits = model(torch.tensor([ids])).logits[0, -1]
    logits[tokenizer.all_special_ids] = float("-inf")
    assert text == " ".join(tokenizer.decode([*ids, int(logits.argmax())]).split())


def test_the_state_carries_them_to_another_model() -> None:
    """A continued trajectory's model is edited: it must not sample anew."""
    first, state = context_templates(tiny("llama"), byte_tokenizer(), OPTIONS, {}, seed=1)
    again, carried = context_templates(tiny("llama", seed=9), byte_tokenizer(), OPTIONS, state, seed=2)
    assert again == first
    assert torch.equal(carried[STATE_KEY], state[STATE_KEY])
    assert check_templates(first)[0] == ("{}",)
    assert len(first[1]) == 2


def test_an_end_token_that_the_tokenizer_appends_is_not_inside_a_text() -> None:
    model, plain, ending = tiny("llama"), byte_tokenizer(), byte_tokenizer()
    ending.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {ending.eos_token}", special_tokens=[(str(ending.eos_token), ending.eos_token_id)]
    )
    assert ending("The")["input_ids"][-1] == ending.eos_token_id
    assert sample_texts(model, ending, OPTIONS, seed=1) == sample_texts(model, plain, OPTIONS, seed=1)


def test_without_starts_the_bare_prompt_is_the_only_context() -> None:
    options = OPTIONS.model_copy(update={"starts": ()})
    templates, state = context_templates(tiny("llama"), byte_tokenizer(), options, {}, seed=1)
    assert check_templates(templates) == (("{}",),)
    assert context_templates(tiny("llama"), byte_tokenizer(), options, state, seed=1)[0] == templates


def test_a_top_k_beyond_the_vocabulary_is_all_of_it() -> None:
    whole, more = (OPTIONS.model_copy(update={"top_k": k}) for k in (264, 10_000))
    model, tokenizer = tiny("llama"), byte_tokenizer()
    assert sample_texts(model, tokenizer, more, seed=1) == sample_texts(model, tokenizer, whole, seed=1)


def test_special_tokens_that_the_model_does_not_have_are_no_matter() -> None:
    tokenizer = byte_tokenizer()
    before = sample_texts(tiny("llama"), tokenizer, OPTIONS, seed=1)
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<extra {i}>" for i in range(300)]})
    assert max(tokenizer.all_special_ids) >= 264
    assert sample_texts(tiny("llama"), tokenizer, OPTIONS, seed=1) == before


def test_samples_that_do_not_fit_are_named() -> None:
    options = OPTIONS.model_copy(update={"num_tokens": 62})
    with pytest.raises(ValueError, match=r"contexts\.num_tokens: 65 tokens, start included, exceed the context of 64"):
        context_templates(tiny("llama"), byte_tokenizer(), options, {}, seed=1)


def test_given_templates_need_no_state() -> None:
    given = (("{}",), ("Today, {}",))
    assert context_templates(tiny("llama"), byte_tokenizer(), ContextOptions(templates=given), {}, seed=1) == (
        given,
        {},
    )
    with pytest.raises(ValidationError, match=r"must hold \{\} exactly once"):
        ContextOptions(templates=(("{}", "Today"),))
