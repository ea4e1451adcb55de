"""Text to tokens and back, shared by both engines so that they cannot disagree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from overedit.tasks.engine.base import Generation
from overedit.tasks.system.untrusted import shorten


def eos_ids(tokenizer: PreTrainedTokenizerBase, folder: Path) -> list[int]:
    """The end-of-text ids: the tokenizer's own and those of the model's generation configuration."""
    found = {tokenizer.eos_token_id}
    path = folder / "generation_config.json"
    if path.is_file():
        named = json.loads(path.read_text()).get("eos_token_id")
        found |= set(named) if isinstance(named, list) else {named}
    return sorted(found - {None})


def generation(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, stop: Sequence[str], ends: Sequence[int]
) -> Generation:
    """Decode generated tokens, cut at the first end token or stop string.

    Args:
        tokenizer: The model's tokenizer.
        ids: The generated tokens; those after an end token or a stop string are ignored.
        stop: Stop strings.
        ends: Ids of the end tokens.
    """
    length = next((index + 1 for index, token in enumerate(ids) if token in ends), len(ids))
    reason = "eos" if length and ids[length - 1] in ends else "length"
    text = _decode(tokenizer, ids[:length])
    if any(string in text for string in stop):
        length = next(n for n in range(1, length + 1) if _stop_position(_decode(tokenizer, ids[:n]), stop) is not None)
        text, reason = _decode(tokenizer, ids[:length]), "stop"
        text = text[: _stop_position(text, stop)]
    return Generation(text, length, reason)


def check_lengths(ids: Sequence[Sequence[int]], max_length: int, texts: Sequence[str]) -> None:
    """Check that token sequences fit into the model's context.

    Raises:
        ValueError: A sequence is longer than `max_length` tokens; the message shows its text.
    """
    for sequence, text in zip(ids, texts, strict=True):
        if len(sequence) > max_length:
            raise ValueError(
                f"a prompt of {len(sequence)} tokens is longer than the {max_length} the model can take: "
                f"{shorten(text)!r}"
            )


def windows(ids: Sequence[int], size: int) -> list[list[int]]:
    """Cut a sequence into windows of at most `size` tokens, each starting with the last token of the one before.

    A sequence without a second token has no window.
    """
    return [list(ids[start : start + size]) for start in range(0, len(ids) - 1, size - 1)]


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True))


def _stop_position(text: str, stop: Sequence[str]) -> int | None:
    positions = [position for string in stop if (position := text.find(string)) >= 0]
    return min(positions, default=None)
