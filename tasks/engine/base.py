"""The one seam to a running model: what every engine can do, and the records it answers with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

NO_TOKEN = -1
"""Stands for the likeliest token where no likelihood is a number; it equals no token."""


class EngineDiedError(RuntimeError):
    """The engine's process is gone, or unusable; another one can be started and asked the same again."""


class Generation(NamedTuple):
    """One greedy continuation."""

    text: str
    """The new text only, special tokens left out; the stop string, where one ended it, is left out too."""
    num_tokens: int
    """Tokens generated, the end-of-sequence token included."""
    finish_reason: str
    """`eos`, `stop` (a stop string) or `length`."""


class Score(NamedTuple):
    """A continuation read token by token after its prompt (teacher forcing); T is its number of tokens."""

    token_nlls: tuple[float, ...]
    """Negative log-likelihood of each of the T tokens, in nats; NaN where the weights are not finite."""
    greedy_ids: tuple[int, ...]
    """The token the model itself would have put at each of the T places; of two equally likely ones the lower id.

    `NO_TOKEN` where the likelihoods are not numbers.
    """
    target_ids: tuple[int, ...]
    """The T tokens of the continuation."""


class SwapReport(NamedTuple):
    """What a swap did, and the proof that it did it."""

    seconds: float
    bytes_written: int
    verified: bool
    """The engine's own copy of each written tensor was read back and has the checkpoint's values.

    False where the engine has no readable copy (a tensor it repacks for its kernels, or values that are not finite);
    a copy that is readable and differs is an error, never a False.
    """


class Engine(Protocol):
    """A loaded model that answers prompts, and whose weights can be exchanged while it runs."""

    kind: str
    """`vllm` or `transformers`; stored with every row."""

    @property
    def start_seconds(self) -> float:
        """What starting it took; 0 before it is started."""

    def generate(self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str] = ()) -> list[Generation]:
        """Greedy continuations of the prompts, in their order."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Teacher-forced scores of (prompt, continuation) pairs; a blank joins them unless one is there."""

    def token_nlls(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """NLL of each token of each text after its first, for perplexity.

        A text is tokenised as its tokenizer does it (a beginning-of-sequence token only where that adds one). One that
        is longer than the model's context is read in pieces, each after the last token of the piece before.
        """

    def swap(self, checkpoint: Path | None) -> SwapReport:
        """Write the edited tensors of a checkpoint folder into the running engine; None puts the base back.

        Raises:
            ValueError: The checkpoint is damaged, or is not one of this model; nothing was written.
            RuntimeError: The engine holds other values than were written.
        """

    def language_model(self) -> Any:
        """The same running model as an lm-eval `LM`, never a second copy of it."""

    def close(self) -> None:
        """Free the model."""
