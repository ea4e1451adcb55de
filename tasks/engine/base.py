"""The interface to a running model: the calls that every engine answers, and the records that they return."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

NO_TOKEN = -1
"""Id of the most likely token where the likelihoods are NaN; it equals no token."""


class EngineDiedError(RuntimeError):
    """The engine's process has ended or is unusable. A new engine can be started and asked again."""


class Generation(NamedTuple):
    """One greedy continuation."""

    text: str
    """The new text without special tokens and without the stop string that ended it."""
    num_tokens: int
    """Tokens generated, the end-of-sequence token included."""
    finish_reason: str
    """`eos`, `stop` (a stop string) or `length`."""


class Score(NamedTuple):
    """Teacher-forced scores of a continuation after its prompt; T is the continuation's number of tokens."""

    token_nlls: tuple[float, ...]
    """Negative log-likelihood of each of the T tokens, in nats; NaN where the weights are not finite."""
    greedy_ids: tuple[int, ...]
    """The model's most likely token at each of the T positions; of two equally likely ones the lower id.

    `NO_TOKEN` where the likelihoods are NaN.
    """
    target_ids: tuple[int, ...]
    """The T tokens of the continuation."""


class SwapReport(NamedTuple):
    """What a swap wrote, and whether the written values were verified."""

    seconds: float
    bytes_written: int
    verified: bool
    """Each rank's own copy of its part of each written tensor was read back, and has the checkpoint's values in the
    checkpoint's places.

    False where something could not be compared. A copy with other values is an error, never a False.
    """
    not_compared: tuple[str, ...] = ()
    """What could not be compared, each with its rank and the reason."""


class Engine(Protocol):
    """A loaded model that answers prompts, and whose weights can be exchanged while it runs."""

    kind: str
    """`vllm` or `transformers`; stored with every row."""

    @property
    def start_seconds(self) -> float:
        """Seconds that the start took."""

    def generate(self, prompts: Sequence[str], *, max_tokens: int, stop: Sequence[str] = ()) -> list[Generation]:
        """Continue prompts greedily; answers are in the order of the prompts."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Score (prompt, continuation) pairs with teacher forcing; a space is put between them unless one is there."""

    def token_nlls(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """Compute the NLL (nats) of each token of each text after its first, for perplexity.

        A text is tokenized as its tokenizer does it (a beginning-of-sequence token only where the tokenizer adds one).
        A text longer than the model's context is read in windows; each starts with the last token of the one before.
        """

    def swap(self, checkpoint: Path | None) -> SwapReport:
        """Write the edited tensors of a checkpoint folder into the running model; None restores the base's.

        Raises:
            ValueError: The checkpoint is damaged or belongs to another model; nothing was written.
            RuntimeError: The engine holds other values than were written.
        """

    def language_model(self) -> Any:
        """The same running model as an lm-eval `LM`, never a second copy of it."""

    def close(self) -> None:
        """Free the model."""
