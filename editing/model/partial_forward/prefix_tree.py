"""The prefix tree: token sequences of which equal prefixes are stored once.

A row of the tree is a token after the tokens before it; its hidden states depend on these alone, because attention is
causal. Rows are numbered in preorder, so those that descend from row k directly follow it, and row q sees row k where
k <= q < end of k's descendants. The tree is cut into packs (see `packing`), each with the whole prefixes of its
sequences: a prefix that several packs share is stored in each of them.

Shapes: S sequences, R rows, L packs of a pass, T rows of a pack (padding included).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch

from overedit.editing.model.partial_forward.batching import padded_rows


class TreePass(NamedTuple):
    """The inputs of a pass over some packs, each padded by repeating its last row."""

    rows_LT: torch.Tensor
    """int64."""
    real_LT: torch.Tensor
    """Whether a place is no padding, bool."""
    positions_LT: torch.Tensor
    """int64."""
    seen_LTT: torch.Tensor
    """Whether a place (the first T) sees another, bool."""
    last_S: torch.Tensor
    """Flat index (into L * T) of the last token of each sequence of these packs, in the order of `sequences`, int64."""


class PrefixTree(NamedTuple):
    """The rows of some sequences."""

    ids_R: torch.Tensor
    """Token of each row, int64."""
    positions_R: torch.Tensor
    """Position of each row's token in its sequences, int64."""
    ends_R: torch.Tensor
    """The row after the last one that descends from each row, int64."""
    packs: tuple[range, ...]
    """The rows of each pack."""
    sequences: tuple[tuple[int, ...], ...]
    """The sequences in each pack."""
    last_rows: tuple[int, ...]
    """The row of each sequence's last token."""

    def lay_out(self, chosen: Sequence[int]) -> TreePass:
        """The inputs of a pass over the chosen packs, on the device of the tree."""
        starts, lengths = zip(*((self.packs[n].start, len(self.packs[n])) for n in chosen), strict=True)
        device = self.ids_R.device
        rows_LT = padded_rows(starts, lengths).to(device)
        real_LT = torch.arange(rows_LT.shape[1], device=device) < torch.tensor(lengths, device=device)[:, None]
        ends_LT = self.ends_R[rows_LT].masked_fill(~real_LT, 0)  # padding is seen by none
        seen_LTT = (rows_LT[:, None] <= rows_LT[:, :, None]) & (rows_LT[:, :, None] < ends_LT[:, None])
        shifts = [place * rows_LT.shape[1] - start for place, start in enumerate(starts)]
        last = [shift + self.last_rows[s] for shift, n in zip(shifts, chosen, strict=True) for s in self.sequences[n]]
        return TreePass(rows_LT, real_LT, self.positions_R[rows_LT], seen_LTT, torch.tensor(last, device=device))


def build_prefix_tree(sequences: Sequence[tuple[int, ...]], device: torch.device, *, pack_tokens: int) -> PrefixTree:
    """Store sequences of at least one token each in packs of at most `pack_tokens` rows; a longer one has its own."""
    ids: list[int] = []
    positions: list[int] = []
    ends: list[int] = []
    starts: list[int] = []
    members: list[list[int]] = []
    last_rows = [0] * len(sequences)
    path: list[int] = []  # the rows of the sequence before
    for s in sorted(range(len(sequences)), key=sequences.__getitem__):  # neighbors share the longest prefixes
        shared = _num_shared(sequences[s], [ids[row] for row in path])
        num_new = len(sequences[s]) - shared
        if not starts or (num_new and len(ids) - starts[-1] + num_new > pack_tokens):
            shared = 0
            starts.append(len(ids))
            members.append([])
        new = range(shared, len(sequences[s]))
        path = [*path[:shared], *range(len(ids), len(ids) + len(new))]
        ids += sequences[s][shared:]
        positions += new
        ends += new  # made true here, and by every sequence that shares the row
        for row in path:
            ends[row] = len(ids)
        members[-1].append(s)
        last_rows[s] = path[-1]
    ids_R, positions_R, ends_R = (torch.tensor(values, device=device) for values in (ids, positions, ends))
    packs = (range(*ends_of) for ends_of in pairwise([*starts, len(ids)]))
    return PrefixTree(ids_R, positions_R, ends_R, tuple(packs), tuple(map(tuple, members)), tuple(last_rows))


def _num_shared(ids: Sequence[int], others: Sequence[int]) -> int:
    """Tokens of the common prefix."""
    both = min(len(ids), len(others))
    return next((n for n in range(both) if ids[n] != others[n]), both)
