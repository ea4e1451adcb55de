"""Token sequences of prompts and their targets.

Prompt and target are joined as one text or as ids, and never decoded and encoded again.

Shapes: B sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.model.anatomy import context_length
from overedit.editing.requests import EditRequest


class TokenPair(NamedTuple):
    """A prompt and its target as token ids."""

    prompt: tuple[int, ...]
    """Begins with the special tokens that the tokenizer adds."""
    target: tuple[int, ...]
    """Without special tokens except, if asked for, the end-of-sequence token."""


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    *,
    append_eos: bool = False,
    join: Literal["text", "ids"] = "text",
) -> list[TokenPair]:
    """Tokenise prompts and their targets, joined by a space unless there is one already.

    A space at a prompt's end is moved to the target, where tokenizers put it in ordinary text.

    Args:
        tokenizer: The model's.
        pairs: (prompt, target), neither empty.
        append_eos: Append the end-of-sequence token to each target.
        join: `text` tokenises the two as one text, so the target has the tokens of running text (a
            SentencePiece tokenizer puts a separate space token in front of a target that is tokenised by itself).
            Where the target changes the prompt's tokens, the two are tokenised separately. `ids` always does that, with
            the prompt unchanged and a space in front of every target, even one that starts with a space.

    Raises:
        ValueError: An empty prompt or target, or no end-of-sequence token to append.
    """
    if append_eos and tokenizer.eos_token_id is None:
        raise ValueError("append_eos: the tokenizer has no end-of-sequence token; set append_eos to false")
    if not pairs:
        return []
    seams = [_seam(*pair) if join == "text" else (pair[0], " " + pair[1]) for pair in pairs]
    prompts, targets = zip(*seams, strict=True)
    end = (tokenizer.eos_token_id,) if append_eos else ()
    prompt_ids = encode_texts(tokenizer, prompts)
    target_ids = encode_texts(tokenizer, targets, special=False)
    if join == "text":
        whole = encode_texts(tokenizer, [prompt + target for prompt, target in zip(prompts, targets, strict=True)])
        target_ids = [
            text[len(front) :] if text[: len(front)] == front else apart
            for text, front, apart in zip(whole, prompt_ids, target_ids, strict=True)
        ]
    for (prompt, target), front, back in zip(pairs, prompt_ids, target_ids, strict=True):
        if not front or not back or not target.strip():
            raise ValueError(f"prompt and target must have a token each: {prompt!r}, {target!r}")
    return [TokenPair(front, back + end) for front, back in zip(prompt_ids, target_ids, strict=True)]


def encode_requests(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    *,
    append_eos: bool = False,
    join: Literal["text", "ids"] = "text",
) -> list[TokenPair]:
    """The edit prompt and the new target of each request, checked against the model's context.

    Raises:
        ValueError: As `encode_pairs`; no request; or a request longer than the model's context.
    """
    if not requests:
        raise ValueError("requests: an edit needs at least one request, got none")
    asked = [(request.prompt, request.target_new) for request in requests]
    pairs = encode_pairs(tokenizer, asked, append_eos=append_eos, join=join)
    context = context_length(model.config)
    for request, pair in zip(requests, pairs, strict=True):
        length = len(pair.prompt) + len(pair.target)
        if context is not None and length > context:
            raise ValueError(f"request {request.case_id}: {length} tokens exceed the model's context of {context}")
    return pairs


def pad(sequences: Sequence[Sequence[int]], *, value: int) -> torch.Tensor:
    """Stack sequences of integers, padded on the right with `value` to the longest: (B, T) int64."""
    longest = max(map(len, sequences))
    rows = [[*ids, *[value] * (longest - len(ids))] for ids in sequences]
    return torch.tensor(rows, dtype=torch.int64).view(len(sequences), longest)


def _seam(prompt: str, target: str) -> tuple[str, str]:
    """Prompt and target, with the space between them on the target's side."""
    body = prompt.rstrip(" ")
    spaces = prompt[len(body) :] or ("" if target[:1].isspace() else " ")
    return body, spaces + target


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, special: bool = True
) -> list[tuple[int, ...]]:
    """Token ids of texts, without an end token that the tokenizer itself appends to every text.

    Args:
        tokenizer: The model's.
        texts: Any number of them.
        special: Prepend special tokens, if the tokenizer does so by default.
    """
    ids = [tuple(row) for row in tokenizer(list(texts), add_special_tokens=special)["input_ids"]] if texts else []
    ends = special and tuple(tokenizer("a")["input_ids"])[-1:] == (tokenizer.eos_token_id,)
    return [row[:-1] for row in ids] if ends else ids


class MarkedSequence(NamedTuple):
    """A token sequence with the position of the subject's last token, and its target."""

    ids: tuple[int, ...]
    """Prompt and all target tokens but the last."""
    position: int
    """Index of the subject's last token."""
    target: tuple[int, ...] = ()
    """What the last `len(target)` positions predict; empty where nothing is asked for."""

    @property
    def num_shifted(self) -> int:
        """Tokens from the subject's last one on: those that a shift of its hidden state can change."""
        return len(self.ids) - self.position
