"""From text to tokens and back; both engines use these functions, so they cannot disagree about either."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from overedit.tasks.engine.base import Generation


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, with the special tokens that the tokenizer puts in front; an end token is left out."""
    rows = [list(ids) for ids in tokenizer(list(texts))["input_ids"]] if texts else []
    ends = tokenizer("a")["input_ids"][-1:] == [tokenizer.eos_token_id]
    return [row[:-1] for row in rows] if ends else rows


def eos_ids(tokenizer: PreTrainedTokenizerBase, folder: Path) -> list[int]:
    """The ids that end a text: the tokenizer's own and those of the model's generation configuration."""
    found = {tokenizer.eos_token_id}
    path = folder / "generation_config.json"
    if path.is_file():
        named = json.loads(path.read_text()).get("eos_token_id")
        found |= set(named) if isinstance(named, list) else {named}
    return sorted(found - {None})


def generation(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, stop: Sequence[str], ends: Sequence[int]
) -> Generation:
    """Turn generated tokens into text, cut at the first end token or stop string.

    Args:
        tokenizer: The model's tokenizer.
        ids: The generated tokens; what follows an end token or a stop string is passed over.
        stop: Stop strings.
        ends: Ids of the end tokens.
    """
    length = next((place + 1 for place, token in enumerate(ids) if token in ends), len(ids))
    reason = "eos" if length and ids[length - 1] in ends else "length"
    text = _decode(tokenizer, ids[:length])
    if any(string in text for string in stop):
        length = next(n for n in range(1, length + 1) if _stop_place(_decode(tokenizer, ids[:n]), stop) is not None)
        text, reason = _decode(tokenizer, ids[:length]), "stop"
        text = text[: _stop_place(text, stop)]
    return Generation(text, length, reason)


def check_lengths(ids: Sequence[Sequence[int]], room: int, texts: Sequence[str]) -> None:
    """Refuse sequences that the model cannot hold.

    Raises:
        ValueError: A sequence is longer than `room` tokens; says which.
    """
    for sequence, text in zip(ids, texts, strict=True):
        if len(sequence) > room:
            start = text if len(text) <= 60 else text[:57] + "..."
            raise ValueError(
                f"a prompt of {len(sequence)} tokens is longer than the {room} the model can take: {start!r}"
            )


def windows(ids: Sequence[int], size: int) -> list[list[int]]:
    """Cut a sequence into pieces of at most `size` tokens, each beginning with the last token of the one before.

    A sequence without a second token has no piece.
    """
    return [list(ids[start : start + size]) for start in range(0, len(ids) - 1, size - 1)]


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True))


def _stop_place(text: str, stop: Sequence[str]) -> int | None:
    places = [place for string in stop if (place := text.find(string)) >= 0]
    return min(places, default=None)
