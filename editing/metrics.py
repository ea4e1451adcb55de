"""Scores of single answers: pure functions of texts, token ids and log-likelihoods.

Each protocol has its own: `exact_match` (generated), `token_accuracy` (teacher forced), `preferred` (probability).
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Self

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_normalize(text: str) -> str:
    """Lower case, no ASCII punctuation, no English articles, single spaces (Rajpurkar et al. 2016)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def same_text(one: str, other: str) -> bool:
    """Whether two texts are equal after SQuAD normalisation.

    Where normalisation empties both (the band "The The", "?!"), the texts themselves are compared, ignoring case and
    outer whitespace, so that an empty output does not count as such an answer.
    """
    first, second = squad_normalize(one), squad_normalize(other)
    if first or second:
        return first == second
    return one.strip().lower() == other.strip().lower()


def prompt_key(prompt: str) -> str:
    """Key under which two prompts count as the same: the text with single spaces."""
    return " ".join(prompt.split())


def exact_match(output: str, target: str) -> bool:
    """Whether a generated text is the target after SQuAD normalisation of both.

    The target is not truncated: one that contains a stop string can never be generated whole (`cut_by_stop`), which
    lowers the ceiling of reliability for every method alike.
    """
    return same_text(output, target)


def cut_by_stop(target: str, stop: Sequence[str]) -> bool:
    """Whether a stop string prevents this target from being generated ("St. Luke's" with stop ".")."""
    ends = [target.index(mark) for mark in stop if mark in target]
    return bool(ends) and not same_text(target[: min(ends)], target)


def token_accuracy(greedy_ids: Sequence[int], target_ids: Sequence[int]) -> float:
    """Share of positions at which two token lists of equal length T >= 1 agree, in [0, 1].

    Against the target this is UltraEdit's teacher-forced score; against the pre-edit greedy tokens it is locality.

    Raises:
        ValueError: the lists have different lengths, or are empty.
    """
    if len(greedy_ids) != len(target_ids) or not target_ids:
        raise ValueError(f"token lists of equal length >= 1 expected, got {len(greedy_ids)} and {len(target_ids)}")
    return sum(mine == theirs for mine, theirs in zip(greedy_ids, target_ids, strict=True)) / len(target_ids)


def exact_sequence(greedy_ids: Sequence[int], target_ids: Sequence[int]) -> bool:
    """Whether every teacher-forced greedy token is the target's."""
    return list(greedy_ids) == list(target_ids)


def preferred(nll: float, nll_other: float) -> bool:
    """Whether one answer is more likely than another: the indicator in ROME's efficacy score (Meng et al. 2022, 3.4).

    Both are mean negative log-likelihoods per token, in nats; a tie counts as no.
    """
    return nll < nll_other


_WORD = re.compile(r"\b\w\w+\b")


class TfIdf(NamedTuple):
    """TF-IDF word weights, fitted on texts: rarer words weigh more."""

    weights: Mapping[str, float]
    """Word -> ln((1 + texts) / (1 + texts with it)) + 1; other words weigh nothing."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Fit the weights on texts."""
        found: Counter[str] = Counter()
        num_texts = 0
        for text in texts:
            found.update(set(_words(text)))
            num_texts += 1
        return cls({word: math.log((1 + num_texts) / (1 + count)) + 1 for word, count in found.items()})

    def similarity(self, text: str, references: Sequence[str]) -> float | None:
        """Cosine similarity of a text and the joined references, in [0, 1]; None without references."""
        if not references:
            return None
        one, other = self._vector(text), self._vector(" ".join(references))
        return min(1.0, math.fsum(value * other[word] for word, value in one.items() if word in other))

    def _vector(self, text: str) -> dict[str, float]:
        counts = Counter(word for word in _words(text) if word in self.weights)
        weighed = {word: count * self.weights[word] for word, count in counts.items()}
        length = math.hypot(*weighed.values())
        return {word: value / length for word, value in weighed.items()}


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
