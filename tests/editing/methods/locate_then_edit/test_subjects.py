"""The position of the subject's last token."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from overedit.editing.methods.locate_then_edit.subjects import (
    KL_TEMPLATE,
    check_templates,
    encode_prompt_sets,
    subject_end,
)
from overedit.editing.requests import EditRequest
from tests.support.teachable_models import byte_tokenizer
from tests.support.tiny_models import tiny

BARE = (("{}",),)


def request(prompt: str, subject: str | None, target: str = "tea") -> EditRequest:
    return EditRequest(case_id="c7", prompt=prompt, subject=subject, target_new=target)


def word_tokenizer(*, bos: bool = False) -> PreTrainedTokenizerFast:
    """One token per word with its space; punctuation attached to the word before it is one token."""
    words = ["<unk>", "<s>", "▁Bo", "▁Bo,", "▁who", "▁is", "▁a", "▁tea", "▁As", "▁Ann", "▁said", "▁friend"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    if bos:
        inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>")


def place_of(
    tokenizer: PreTrainedTokenizerFast, asked: EditRequest, templates: tuple[tuple[str, ...], ...] = BARE
) -> list[str]:
    (prompt_set,) = encode_prompt_sets(tiny("llama"), tokenizer, [asked], templates)
    return [tokenizer.convert_ids_to_tokens(marked.ids[marked.position]) for marked in prompt_set.prompts]


@pytest.mark.parametrize("bos", [False, True])
def test_a_subject_in_front(bos: bool) -> None:
    assert place_of(word_tokenizer(bos=bos), request("Bo who is", "Bo")) == ["▁Bo"]


def test_a_token_of_subject_and_punctuation_is_the_subjects_last() -> None:
    assert place_of(word_tokenizer(), request("Bo, who is", "Bo")) == ["▁Bo,"]


def test_the_last_of_several_occurrences_as_a_whole_word() -> None:
    asked = request("As Ann said Bo is a friend of Bob who is", "Bo")
    (prompt_set,) = encode_prompt_sets(tiny("llama"), word_tokenizer(), [asked], BARE)
    assert prompt_set.prompts[0].position == 3
    twice = request("Bo is Bo who is", "Bo")
    (prompt_set,) = encode_prompt_sets(tiny("llama"), word_tokenizer(), [twice], BARE)
    assert prompt_set.prompts[0].position == 2


def test_every_context_has_its_own_position_and_the_same_token() -> None:
    templates = (("{}",), ("As Ann said {}", "Bo said. {}"))
    asked = request("Bo who is", "Bo")
    assert place_of(word_tokenizer(bos=True), asked, templates) == ["▁Bo"] * 3
    (prompt_set,) = encode_prompt_sets(tiny("llama"), word_tokenizer(bos=True), [asked], templates)
    assert [marked.position for marked in prompt_set.prompts] == [1, 4, 3]
    assert all(marked.ids[0] == 1 for marked in (*prompt_set.prompts, prompt_set.kl))


def test_bytes_of_a_letter_that_is_several_tokens() -> None:
    """Two tokens may cover one character: the last of them counts."""
    tokenizer = byte_tokenizer()
    asked = request("the cafés of Zoë are", "Zoë")
    (prompt_set,) = encode_prompt_sets(tiny("llama"), tokenizer, [asked], BARE)
    marked = prompt_set.prompts[0]
    assert marked.position == len("the cafés of Zoë".encode()) - 1
    assert tokenizer.decode(marked.ids[: marked.position + 1]) == "the cafés of Zoë"


def test_ids_are_prompt_and_all_but_the_last_target_token() -> None:
    tokenizer = byte_tokenizer()
    (prompt_set,) = encode_prompt_sets(
        tiny("llama"), tokenizer, [request("of Zoë it is ", "Zoë")], BARE, append_eos=True
    )
    marked = prompt_set.prompts[0]
    assert tokenizer.decode(marked.ids) == "of Zoë it is tea"
    assert tokenizer.decode(marked.target) == " tea<|eos|>"
    assert tokenizer.decode(prompt_set.kl.ids) == KL_TEMPLATE.replace("{}", "Zoë")
    assert tokenizer.decode(prompt_set.kl.ids[: prompt_set.kl.position + 1]) == "Zoë"
    assert prompt_set.kl.target == ()


@pytest.mark.parametrize(
    ("prompt", "subject", "said"),
    [
        ("Who is Ann", "Bo", "request c7: its subject 'Bo' does not occur in its prompt 'Who is Ann'"),
        ("Who is Ann", None, "request c7: it has no subject"),
        ("Who is Ann", "  ", "request c7: it has no subject"),
    ],
)
def test_a_missing_subject_is_an_error_that_names_the_request(prompt: str, subject: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        encode_prompt_sets(tiny("llama"), byte_tokenizer(), [request(prompt, subject)], BARE)


def test_a_part_of_a_word_counts_where_there_is_nothing_better() -> None:
    assert subject_end(request("In the Bohemian style of", "Bo")) == len("In the Bo")
    assert subject_end(request("What is (a+b)* about", "(a+b)*")) == len("What is (a+b)*")


def test_a_context_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"request c7: .* tokens, context template included, exceed"):
        encode_prompt_sets(tiny("llama"), byte_tokenizer(), [request("Bo is", "Bo")], (("{}", "x" * 60 + " {}"),))


@pytest.mark.parametrize("templates", [(), (("Say {}",),), (("{}", "no slot"),), (("{}", "{} {}"),), (("{}",), ())])
def test_templates_that_are_none(templates: tuple[tuple[str, ...], ...]) -> None:
    with pytest.raises(ValueError, match="context template"):
        check_templates(templates)
