"""Plain reference implementations that tests compare the project's own computations with."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from overedit.editing.model.tokenization import TokenPair

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORD = re.compile(r"[!-/:-@\[-`{-~]|[^\t-\r !-/:-@\[-`{-~]+")  # an ASCII punctuation mark is a word of its own
_NGRAM_WEIGHTS = {2: 2 / 3, 3: 4 / 3}
_BACK_TO_BACK = re.compile(r"(.{1,40}?)\1{3,}", re.DOTALL)

IGNORED = -100
"""The label of a position whose next token is not asked for."""

Side = Literal["left", "right"]


def is_empty(output: str) -> bool:
    """Whether an output is empty without punctuation and whitespace (muting, a form of collapse)."""
    return not output.translate(_NO_PUNCTUATION).strip()


def ngram_repetition(text: str, n: int = 2) -> float:
    """Share of word n-grams that are repeats, 1 - distinct / all, in [0, 1); 0 for texts of fewer than n + 1 words.

    Raises:
        ValueError: n < 1.
    """
    if n < 1:
        raise ValueError(f"n-grams need n >= 1, got {n}")
    words = text.split()
    grams = [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def ngram_entropy(text: str) -> float:
    """Fluency (Meng et al. 2022): weighted mean of the entropies, in bits, of bigrams (2/3) and trigrams (4/3).

    Words are separated by ASCII whitespace, and each ASCII punctuation mark is one; case counts. 0 for a text that
    repeats one word without end, and for one of a single word.
    """
    words = _WORD.findall(text)
    grams = {n: list(zip(*(words[start:] for start in range(n)), strict=False)) for n in _NGRAM_WEIGHTS}
    return sum(weight * _entropy(grams[n]) for n, weight in _NGRAM_WEIGHTS.items()) / len(_NGRAM_WEIGHTS)


def _entropy(items: Sequence[object]) -> float:
    shares = [count / len(items) for count in Counter(items).values()]
    return math.fsum(share * math.log2(1 / share) for share in shares)


def is_repetitive(text: str) -> bool:
    """Whether four or more repeats of up to 40 characters in a row fill 8 characters or more, and half of the text.

    Works on characters, so it also detects collapse without spaces ("!!!!!!!!", "ofofofof").
    """
    stripped = text.strip()
    longest = max((len(match.group(0)) for match in _BACK_TO_BACK.finditer(stripped)), default=0)
    return longest >= 8 and 2 * longest >= len(stripped)


def wilson_interval(successes: float, num_trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927); z = 1.96 gives 95 %.

    For scores between 0 and 1 that are no plain yes or no (token accuracy) the sum of scores may be given; the interval
    is then conservative, for no distribution on [0, 1] of that mean varies more than yes and no.

    Returns:
        Lower and upper bound; (0, 1) without a trial, when nothing is known.

    Raises:
        ValueError: successes outside [0, num_trials].
    """
    if not 0 <= successes <= num_trials:
        raise ValueError(f"successes between 0 and num_trials expected, got {successes} of {num_trials}")
    if num_trials == 0:
        return 0.0, 1.0
    share = successes / num_trials
    scale = 1 + z * z / num_trials
    middle = (share + z * z / (2 * num_trials)) / scale
    reach = z * math.sqrt(share * (1 - share) / num_trials + z * z / (4 * num_trials**2)) / scale
    return max(0.0, middle - reach), min(1.0, middle + reach)


class PaddedBatch(NamedTuple):
    """Prompts and targets as the model reads them: all but the last target token is input."""

    input_ids_BT: torch.Tensor
    """int64."""
    attention_mask_BT: torch.Tensor
    """int64; 1 for a real token."""
    labels_BT: torch.Tensor
    """int64; the NEXT token where that is a target token (the first at the prompt's last position), else `IGNORED`."""


def pad_pairs(pairs: Sequence[TokenPair], *, pad_id: int, side: Side = "right") -> PaddedBatch:
    """The input, attention mask and labels of a batch.

    Args:
        pairs: At least one.
        pad_id: Any id: padding is masked.
        side: Where padding goes. Models with learned positions need position ids when it is on the left.
    """
    inputs = [[*pair.prompt, *pair.target[:-1]] for pair in pairs]
    labels = [[IGNORED] * (len(pair.prompt) - 1) + list(pair.target) for pair in pairs]
    return PaddedBatch(
        padded(inputs, pad_id, side),
        padded([[1] * len(ids) for ids in inputs], 0, side),
        padded(labels, IGNORED, side),
    )


def pad_id_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token id to pad with: the tokenizer's own, else its end-of-sequence token, else 0."""
    return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)


def padded(sequences: Sequence[Sequence[int]], value: int, side: Side) -> torch.Tensor:
    """Stack sequences of integers, filled up on either side: (B, T) int64."""
    longest = max(map(len, sequences))
    rows = []
    for ids in sequences:
        filling = [value] * (longest - len(ids))
        rows.append([*ids, *filling] if side == "right" else [*filling, *ids])
    return torch.tensor(rows, dtype=torch.int64).view(len(sequences), longest)
