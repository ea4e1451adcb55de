"""Batched calls of a transformers model: greedy continuation, and log-likelihoods token by token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import log_softmax
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from overedit.editing.model.memory import OomHalver
from overedit.editing.model.routing import Router, routed
from overedit.tasks.engine.base import NO_TOKEN


class Reading(NamedTuple):
    """A model's scores of a sequence of T tokens, at each of the T - 1 positions after the first."""

    nlls: tuple[float, ...]
    """Negative log-likelihood of the sequence's token, in nats."""
    greedy_ids: tuple[int, ...]
    """The most likely token; of two equally likely ones the lower id; `NO_TOKEN` where the NLL is NaN."""


class LocalModel(NamedTuple):
    """A model with its tokenizer, context length and batch size."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    """The longest sequence, in tokens."""
    ends: list[int]
    """Ids of the tokens that end a text."""
    batch_tokens: int
    """Tokens of a batch, padding included."""
    halving: OomHalver
    """Halves a batch that exceeds the memory, and those after it."""
    router: Router | None = None
    """Edits beside the weights."""

    def continue_all(
        self, ids: Sequence[Sequence[int]], *, max_tokens: int, stop: Sequence[str] = ()
    ) -> list[list[int]]:
        """Continue sequences greedily, at least up to the first end token or stop string, if there is one.

        Args:
            ids: Token ids of each sequence.
            max_tokens: The most new tokens.
            stop: Strings that end a continuation.

        Returns:
            The new tokens of each sequence, in the order of the sequences.
        """
        answers: dict[int, list[int]] = {}

        def run(batch: Sequence[int]) -> list[list[int]]:
            most = min(max_tokens, self.max_length - len(ids[batch[0]]))
            return self._continue([ids[i] for i in batch], most, stop)

        def size(batch: Sequence[int]) -> int:
            return len(batch) * (len(ids[batch[0]]) + max_tokens)

        for batch, new in self.halving.run(self._batches(ids, num_new=max_tokens), run, size=size):
            answers |= zip(batch, new, strict=True)
        return [answers[i] for i in range(len(ids))]

    def read_all(self, ids: Sequence[Sequence[int]], num_prompt: Sequence[int] = ()) -> list[Reading]:
        """Score sequences, each of at least two tokens, in their order.

        Args:
            ids: Token ids of each sequence.
            num_prompt: How many tokens of each are its prompt, for a router; without it, none has a prompt.
        """
        found: dict[int, Reading] = {}
        sizes = num_prompt or [0] * len(ids)

        def run(batch: Sequence[int]) -> list[Reading]:
            return self._read([ids[i] for i in batch], [sizes[i] - 1 for i in batch])

        def size(batch: Sequence[int]) -> int:
            return len(batch) * len(ids[batch[0]])

        for batch, readings in self.halving.run(self._batches(ids), run, size=size):
            found |= zip(batch, readings, strict=True)
        return [found[i] for i in range(len(ids))]

    def _batches(self, ids: Sequence[Sequence[int]], *, num_new: int = 0) -> Iterator[list[int]]:
        """Indices of sequences batched together, the longest first; one that would exceed the context is a batch alone.

        Args:
            ids: Token ids of each sequence.
            num_new: Tokens that will be generated after each.
        """
        batch: list[int] = []
        for i in sorted(range(len(ids)), key=lambda i: -len(ids[i])):
            longest = len(ids[batch[0]]) + num_new if batch else 0
            if batch and ((len(batch) + 1) * longest > self.batch_tokens or longest > self.max_length):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    @torch.inference_mode()
    def _continue(self, ids: Sequence[Sequence[int]], max_tokens: int, stop: Sequence[str]) -> list[list[int]]:
        width = len(ids[0])
        pad = self.ends[0] if self.ends else 0
        input_ids = torch.tensor([[*[pad] * (width - len(row)), *row] for row in ids], device=self.model.device)
        mask = torch.tensor([[*[0] * (width - len(row)), *[1] * len(row)] for row in ids], device=self.model.device)
        seen = [_SeenStopString(self.tokenizer, stop, width)] if stop else []
        with routed(self.model, self.router, [width - 1] * len(ids)):
            output = self.model.generate(
                input_ids,
                attention_mask=mask,
                generation_config=GenerationConfig(
                    do_sample=False, max_new_tokens=max_tokens, eos_token_id=self.ends or None, pad_token_id=pad
                ),
                stopping_criteria=StoppingCriteriaList(seen),
            )
        return [list(row) for row in output[:, width:].tolist()]

    @torch.inference_mode()
    def _read(self, ids: Sequence[Sequence[int]], ends: Sequence[int]) -> list[Reading]:
        width = len(ids[0])
        padded = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids], device=self.model.device)
        # attention is causal: the padding on the right changes nothing
        with routed(self.model, self.router, ends):
            logits = self.model(padded).logits[:, :-1].float()
        nlls = -log_softmax(logits, dim=-1).gather(-1, padded[:, 1:, None])[..., 0]
        greedy = logits.argmax(-1).masked_fill(nlls.isnan(), NO_TOKEN)
        both = zip(nlls.tolist(), greedy.tolist(), ids, strict=True)
        return [Reading(tuple(n[: len(row) - 1]), tuple(g[: len(row) - 1])) for n, g, row in both]


class _SeenStopString(StoppingCriteria):
    """Ends a sequence once its new text contains a stop string."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], num_prompt: int) -> None:
        self.tokenizer, self.stop, self.num_prompt = tokenizer, stop, num_prompt

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Whether each sequence of the batch has ended."""
        texts = self.tokenizer.batch_decode(input_ids[:, self.num_prompt :], skip_special_tokens=True)
        seen = [any(string in text for string in self.stop) for text in texts]
        return torch.tensor(seen, device=input_ids.device)
