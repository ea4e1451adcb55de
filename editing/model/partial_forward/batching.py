"""Which sequences run together in a forward pass: passes of like length, and how many tokens they take with padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from overedit.editing.model.tokenization import Placed

_EFFICIENT_TOKENS = 384


def length_groups(lengths: Sequence[int], chosen: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Split sequences into passes of like length, so that little padding is computed.

    A pass ends where it would exceed `max_tokens` (padding counted), and, once it holds enough for the matrix products
    to run at full rate, where the next sequence is shorter than nine tenths of its longest.

    Returns:
        The chosen sequences, longest first, cut into passes.
    """
    groups: list[list[int]] = []
    for n in sorted(chosen, key=lambda n: -lengths[n]):
        longest, count = (lengths[groups[-1][0]], len(groups[-1])) if groups else (0, 0)
        full = longest * (count + 1) > max_tokens
        ragged = longest * count >= _EFFICIENT_TOKENS and 10 * lengths[n] < 9 * longest
        if not groups or full or ragged:
            groups.append([])
        groups[-1].append(n)
    return groups


def padded_tokens(lengths: Sequence[int], chosen: Sequence[int]) -> int:
    """Tokens of a pass over the chosen sequences, padding included."""
    return len(chosen) * max(lengths[n] for n in chosen)


def batches(sequences: Sequence[Placed], max_tokens: int) -> Iterator[list[int]]:
    """Indices of sequences of like length, at most `max_tokens` together, padding counted."""
    waiting: list[int] = []
    for i in sorted(range(len(sequences)), key=lambda i: sequences[i].place):
        if waiting and (len(waiting) + 1) * (sequences[i].place + 1) > max_tokens:
            yield waiting
            waiting = []
        waiting.append(i)
    if waiting:
        yield waiting


def placed_tokens(sequence: Placed) -> int:
    """How many tokens of a sequence run in a pass: those from the shifted place on."""
    return len(sequence.ids) - sequence.place
