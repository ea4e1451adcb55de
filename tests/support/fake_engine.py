"""An engine that runs no model: it answers from a table and writes down what it was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from overedit.tasks.engine.base import Generation, Score, SwapReport

GENERATED = (32, (".", "\n"))
"""The longest answer and the stop strings of `EvaluationOptions()`."""


class FakeEngine:
    """A token is a word, and its NLL is 1 where the answer has that word there, else 2.

    Args:
        answers: Prompt -> answer.
        nlls: (prompt, target) -> the NLL of each token, where it is another.
        kind: What it calls itself.
    """

    start_seconds = 1.5

    def __init__(
        self,
        answers: Mapping[str, str],
        nlls: Mapping[tuple[str, str], tuple[float, ...]] | None = None,
        *,
        kind: str = "transformers",
    ) -> None:
        self.kind = kind
        self.answers = answers
        self.nlls = nlls or {}
        self.calls: list[tuple[str, int]] = []
        self.asked: list[Any] = []
        self.swaps: list[Path | None] = []
        self.is_broken = False
        self.is_closed = False

    def generate(self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str]) -> list[Generation]:
        assert (max_tokens, tuple(stop)) == GENERATED
        self.calls.append(("generate", len(prompts)))
        self.asked += prompts
        return [Generation(self.answers[prompt], len(self.answers[prompt].split()), "stop") for prompt in prompts]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        self.calls.append(("score", len(pairs)))
        self.asked += pairs
        return [self._score(prompt, target) for prompt, target in pairs]

    def token_nlls(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        return [(2.0,) * len(text.split()) for text in texts]

    def swap(self, checkpoint: Path | None) -> SwapReport:
        self.swaps.append(checkpoint)
        if self.is_broken:
            raise RuntimeError("broken")
        return SwapReport(0.1, 4, True)

    def language_model(self) -> str:
        return "model"

    def close(self) -> None:
        self.is_closed = True

    def _score(self, prompt: str, target: str) -> Score:
        said, wanted = self.answers[prompt].split(), target.split()
        greedy = tuple(word_id(said[index]) if index < len(said) else -1 for index in range(len(wanted)))
        ids = tuple(word_id(word) for word in wanted)
        nlls = tuple(1.0 if mine == right else 2.0 for mine, right in zip(greedy, ids, strict=True))
        return Score(self.nlls.get((prompt, target), nlls), greedy, ids)


def word_id(word: str) -> int:
    return sum(ord(character) for character in word)
