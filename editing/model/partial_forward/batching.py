"""Batching of token sequences: which ones share a forward pass, and their padding.

Shapes: B sequences of a pass, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

import torch

_EFFICIENT_TOKENS = 384
"""Tokens from which the matrix products of a pass run at full rate."""

CPU_TOKENS = 1024
"""Tokens of a pass on a CPU: enough for the full rate of matrix products, few enough that the activations stay in the
processor's cache."""


def plan_batches(
    lengths: Sequence[int],
    max_tokens: int,
    *,
    order: Iterable[int] | None = None,
    padded: bool,
    split_ragged: bool = False,
) -> list[list[int]]:
    """Cut sequences into consecutive batches of at most `max_tokens`; a longer sequence has a batch of its own.

    Args:
        lengths: Tokens of each sequence.
        max_tokens: The limit of a batch.
        order: Indices of the sequences to batch, in this order; all, as they come, by default.
        padded: Count padding up to the longest sequence of a batch.
        split_ragged: Also start a new batch once the current one holds enough for the matrix products to run at full
            rate and the next sequence is shorter than nine tenths of its longest.

    Returns:
        Indices of the sequences of each batch.
    """
    batches: list[list[int]] = []
    longest = total = 0
    for i in range(len(lengths)) if order is None else order:
        length, count = lengths[i], len(batches[-1]) if batches else 0
        tokens = max(longest, length) * (count + 1) if padded else total + length
        ragged = split_ragged and longest * count >= _EFFICIENT_TOKENS and 10 * length < 9 * longest
        if not batches or tokens > max_tokens or ragged:
            batches.append([])
            longest = total = 0
        batches[-1].append(i)
        longest, total = max(longest, length), total + length
    return batches


def length_groups(lengths: Sequence[int], chosen: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Batches of sequences of similar length, longest first, padding counted; see `plan_batches`."""
    longest_first = sorted(chosen, key=lambda n: -lengths[n])
    return plan_batches(lengths, max_tokens, order=longest_first, padded=True, split_ragged=True)


def padded_tokens(lengths: Sequence[int], chosen: Sequence[int]) -> int:
    """Tokens of a pass over the chosen sequences, padding included."""
    return len(chosen) * max(lengths[n] for n in chosen)


def padded_rows(first_rows: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
    """Row indices of sequences stored one after another, each padded on the right by repeating its last row.

    Attention is causal, so no real token sees the padding, and no attention mask or pad id is needed.

    Args:
        first_rows: Row of each sequence's first token.
        lengths: Tokens of each sequence, at least 1.

    Returns:
        (B, T) int64, on the CPU.
    """
    first_B1 = torch.tensor(first_rows)[:, None]
    last_B1 = torch.tensor(lengths)[:, None] - 1
    steps_T = torch.arange(int(last_B1.max()) + 1)
    return first_B1 + torch.minimum(steps_T, last_B1)


def pad_with_last(sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """Token ids padded on the right by repeating each last token (see `padded_rows`): (B, T) int64, on the CPU."""
    lengths = [len(ids) for ids in sequences]
    ids_R = torch.tensor([token for ids in sequences for token in ids])
    return ids_R[padded_rows(list(accumulate(lengths[:-1], initial=0)), lengths)]
