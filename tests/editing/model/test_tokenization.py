"""Token sequences: seams, special tokens, padding and labels."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from overedit.editing.model.tokenization import TokenPair, encode_pairs, encode_requests, pad
from overedit.editing.requests import EditRequest
from tests.support.oracles import IGNORED, pad_id_of, pad_pairs, padded
from tests.support.tiny_models import tiny
from tests.support.tokenizers import EOS, WORDS, piece_tokenizer


def words(ids: tuple[int, ...]) -> list[str]:
    return [WORDS[i] for i in ids]


def test_begin_token_once_and_no_end_token() -> None:
    [pair] = encode_pairs(piece_tokenizer(), [("the capital is", "Oslo")])
    assert words(pair.prompt) == ["<bos>", "▁the", "▁capital", "▁is"]
    assert words(pair.target) == ["▁Oslo"]


def test_joining_as_text_makes_no_separate_space_token() -> None:
    tokenizer = piece_tokenizer()
    [apart] = encode_pairs(tokenizer, [("the capital is", "Oslo")], join="ids")
    assert words(apart.target) == ["▁", "▁Oslo"]  # what tokenising apart does to SentencePiece
    [whole] = encode_pairs(tokenizer, [("the capital is", "Oslo")])
    assert words(whole.target) == ["▁Oslo"]


@pytest.mark.parametrize(
    ("prompt", "target"), [("the capital is", " Oslo"), ("the capital is ", "Oslo"), ("the capital is", "Oslo")]
)
def test_one_space_whichever_side_has_it(prompt: str, target: str) -> None:
    [pair] = encode_pairs(piece_tokenizer(), [(prompt, target)])
    assert words(pair.prompt) == ["<bos>", "▁the", "▁capital", "▁is"]
    assert words(pair.target) == ["▁Oslo"]


def test_an_end_token_that_the_tokenizer_adds_is_not_in_the_middle() -> None:
    tokenizer = piece_tokenizer(eos=True)
    [pair] = encode_pairs(tokenizer, [("the capital is", "Oslo")])
    assert words(pair.prompt + pair.target) == ["<bos>", "▁the", "▁capital", "▁is", "▁Oslo"]
    [pair] = encode_pairs(tokenizer, [("the capital is", "Oslo")], append_eos=True)
    assert pair.target[-1] == EOS
    assert (pair.prompt + pair.target).count(EOS) == 1


def test_end_token_on_request() -> None:
    [pair] = encode_pairs(piece_tokenizer(bos=False), [("the capital is", "Oslo")], append_eos=True)
    assert words(pair.prompt + pair.target) == ["▁the", "▁capital", "▁is", "▁Oslo", "<eos>"]
    without = PreTrainedTokenizerFast(tokenizer_object=piece_tokenizer().backend_tokenizer)
    with pytest.raises(ValueError, match="append_eos: the tokenizer has no end-of-sequence token"):
        encode_pairs(without, [("the", "Oslo")], append_eos=True)


def test_a_target_without_tokens_is_an_error() -> None:
    with pytest.raises(ValueError, match="must have a token each: 'the', ''"):
        encode_pairs(piece_tokenizer(), [("the", "")])
    assert encode_pairs(piece_tokenizer(), []) == []


def test_requests_are_checked_against_the_context() -> None:
    model = tiny("llama", max_position_embeddings=5)
    fits = EditRequest(case_id="a", prompt="the capital is", target_new="Oslo")
    too_long = EditRequest(case_id="b", prompt="the capital is the", target_new="Oslo")
    assert len(encode_requests(model, piece_tokenizer(), [fits])) == 1
    with pytest.raises(ValueError, match="request b: 6 tokens exceed the model's context of 5"):
        encode_requests(model, piece_tokenizer(), [fits, too_long])
    with pytest.raises(ValueError, match="at least one request"):
        encode_requests(model, piece_tokenizer(), [])


def test_labels_are_the_next_tokens_of_the_target() -> None:
    pairs = [TokenPair((1, 5, 6), (7, 8)), TokenPair((1,), (9,))]
    batch = pad_pairs(pairs, pad_id=2)
    assert batch.input_ids_BT.tolist() == [[1, 5, 6, 7], [1, 2, 2, 2]]
    assert batch.attention_mask_BT.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert batch.labels_BT.tolist() == [[IGNORED, IGNORED, 7, 8], [9, IGNORED, IGNORED, IGNORED]]
    left = pad_pairs(pairs, pad_id=2, side="left")
    assert left.input_ids_BT.tolist() == [[1, 5, 6, 7], [2, 2, 2, 1]]
    assert left.labels_BT.tolist()[1] == [IGNORED, IGNORED, IGNORED, 9]


def test_an_end_token_that_is_the_pad_token_stays_real() -> None:
    batch = pad_pairs([TokenPair((4,), (7, EOS)), TokenPair((4, 5), (7, 7, EOS))], pad_id=EOS)
    assert batch.labels_BT.tolist() == [[7, EOS, IGNORED, IGNORED], [IGNORED, 7, 7, EOS]]
    assert batch.attention_mask_BT.sum(1).tolist() == [2, 4]


def test_pad() -> None:
    assert pad([[1], [2, 3]], value=0).tolist() == [[1, 0], [2, 3]]
    assert padded([[1], [2, 3]], 0, "left").tolist() == [[0, 1], [2, 3]]
    assert pad([[], []], value=0).shape == (2, 0)
    assert pad([[1]], value=0).dtype == torch.int64


def test_pad_id() -> None:
    tokenizer = piece_tokenizer()
    assert pad_id_of(tokenizer) == 0
    tokenizer.pad_token = None
    assert pad_id_of(tokenizer) == EOS
    tokenizer.eos_token = None
    assert pad_id_of(tokenizer) == 0
