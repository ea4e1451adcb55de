"""Scores of single answers: pure functions of texts, token ids and log-likelihoods.

The three protocols use one each: `exact_match` (generated), `token_accuracy` (teacher forced) and `preferred`
(probability).
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
_WORD = re.compile(r"[!-/:-@\[-`{-~]|[^\t-\r !-/:-@\[-`{-~]+")  # an ASCII punctuation mark is a word of its own
_NGRAM_WEIGHTS = {2: 2 / 3, 3: 4 / 3}
_BACK_TO_BACK = re.compile(r"(.{1,40}?)\1{3,}", re.DOTALL)


def squad_normalize(text: str) -> str:
    """Lower case, no ASCII punctuation, no English articles, single blanks (Rajpurkar et al. 2016)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def same_text(one: str, other: str) -> bool:
    """Whether two texts are the same after normalisation.

    Where normalisation leaves nothing of either (the band "The The", "?!"), the texts themselves are compared, without
    case and outer blanks: an empty output must not pass for such an answer.
    """
    first, second = squad_normalize(one), squad_normalize(other)
    if first or second:
        return first == second
    return one.strip().lower() == other.strip().lower()


def prompt_key(prompt: str) -> str:
    """What makes two prompts the same: the text with single blanks."""
    return " ".join(prompt.split())


def exact_match(output: str, target: str) -> bool:
    """Whether a generated text is the target after SQuAD normalisation of both.

    The target is taken as it is: one that holds a stop string inside can never be generated whole (`cut_by_stop`),
    which lowers the ceiling of reliability for every method alike.
    """
    return same_text(output, target)


def cut_by_stop(target: str, stop: Sequence[str]) -> bool:
    """Whether generation that ends at the first stop string cannot give this target ("St. Luke's" with stop ".")."""
    ends = [place for mark in stop if (place := target.find(mark)) >= 0]
    return bool(ends) and not same_text(target[: min(ends)], target)


def token_accuracy(greedy_ids: Sequence[int], target_ids: Sequence[int]) -> float:
    """Share of places at which the two token lists of equal length T >= 1 agree, in [0, 1].

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
    """Whether one answer is likelier than the other: the indicator in ROME's efficacy score (Meng et al. 2022, 3.4).

    Both are mean negative log-likelihoods per token, in nats; a draw counts as no.
    """
    return nll < nll_other


def is_empty(output: str) -> bool:
    """Whether an output says nothing, punctuation and blanks left out (muting, a form of collapse)."""
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

    Words are what ASCII blanks part, and each ASCII punctuation mark; case counts. 0 for a text that repeats one word
    without end, and for one of a single word.
    """
    words = _WORD.findall(text)
    grams = {n: list(zip(*(words[start:] for start in range(n)), strict=False)) for n in _NGRAM_WEIGHTS}
    return sum(weight * _entropy(grams[n]) for n, weight in _NGRAM_WEIGHTS.items()) / len(_NGRAM_WEIGHTS)


def _entropy(items: Sequence[object]) -> float:
    shares = [count / len(items) for count in Counter(items).values()]
    return math.fsum(share * math.log2(1 / share) for share in shares)


def is_repetitive(text: str) -> bool:
    """Whether a unit of up to 40 characters stands four times or more in a row, over 8 characters and half of the text.

    Works on characters, so it also sees collapse without blanks ("!!!!!!!!", "ofofofof").
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


_WORD = re.compile(r"\b\w\w+\b")


class TfIdf(NamedTuple):
    """Weights of words, learnt from texts: those in few of them weigh more."""

    weights: Mapping[str, float]
    """Word -> ln((1 + texts) / (1 + texts with it)) + 1; words of no text weigh nothing."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Learnt from these texts."""
        found: Counter[str] = Counter()
        num_texts = 0
        for text in texts:
            found.update(set(_words(text)))
            num_texts += 1
        return cls({word: math.log((1 + num_texts) / (1 + count)) + 1 for word, count in found.items()})

    def similarity(self, text: str, references: Sequence[str]) -> float | None:
        """Cosine of the angle between a text and the references taken together, in [0, 1]; None without references."""
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
