"""How like other texts a longer text is (Meng et al. 2022, section 3.4, "consistency").

Words are taken as scikit-learn's `TfidfVectorizer` takes them: two letters or digits at least, without case.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Self

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
