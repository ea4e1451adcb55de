"""PCB: merging by how parameters compete within a change and between changes.

"Parameter Competition Balancing for Model Merging" (Du et al., NeurIPS 2024, arXiv 2410.02396). For the changes t_i of
S shards, with |t_i| clipped at its tails and min-max scaled to m_i,

    score_i = exp(S m_i^2) tanh(t_i sum_j t_j)
    s_i     = min-max of score_i, clamped from below at its (1 - keep) quantile
    merged  = sum_i s_i t_i / sum_i s_i

where the last line has the clipped t_i. An entry at which every s_i is 0 is 0. The scores are made for one shard at a
time, in the dtype of the changes: beside the changes, a dozen tensors of one change's size are held at most.

Checked against: clipped changes, both parts of the scores, weights and merged changes of the published implementation,
in its four variants (golden data).

Shapes: S shards, N entries of a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch

Variant = Literal["root", "nlp", "vision", "evolution"]
"""Which of the published code's four forms."""


class Scored(NamedTuple):
    """One shard's change and what it is weighted by."""

    clipped_N: torch.Tensor
    """The change with |t| between the lower and upper tail's first entries."""
    intra_N: torch.Tensor
    """Within the change: 1 to exp(S)."""
    inter_N: torch.Tensor
    """Between the changes: from -1 to 1, or from -S to S in `evolution`."""


class _Ends(NamedTuple):
    """Smallest and largest magnitude that is not clipped."""

    low: float
    high: float


def competition_balanced(deltas: Sequence[torch.Tensor], *, keep: float, variant: Variant = "root") -> torch.Tensor:
    """Merge changes of one tensor.

    Args:
        deltas: At least two of one shape, float32 or float64.
        keep: The share of each change's entries with a weight above 0.
        variant: `root` is the paper's.

    Returns:
        Their shape and dtype.
    """
    rows = [delta.reshape(-1) for delta in deltas]
    weighted_N, weights_N = torch.zeros_like(rows[0]), torch.zeros_like(rows[0])
    for scored in scores(rows, variant):
        scale_N = scaled(scored.intra_N * scored.inter_N, keep)
        weighted_N += scale_N * scored.clipped_N
        weights_N += scale_N
    return (weighted_N / weights_N.clamp(min=1e-12)).reshape(deltas[0].shape)


def scores(rows: Sequence[torch.Tensor], variant: Variant) -> Iterator[Scored]:
    """Both parts of each shard's score, one shard after the other; rows are the changes, (N)."""
    ends = [_ends(row_N, 1e-4 if variant == "root" else 1e-2) for row_N in rows]
    together_N = _together(rows, ends, variant)
    for row_N, end in zip(rows, ends, strict=True):
        size_N = row_N.abs().clamp(*end)
        intra_N = (len(rows) * _within(size_N, end) ** 2).exp()
        if variant == "evolution":
            mine_N, inter_N = _signed(row_N, end), torch.zeros_like(row_N)
            for other_N, other in zip(rows, ends, strict=True):
                inter_N += (mine_N * _signed(other_N, other)).tanh()
        else:
            inter_N = (row_N * together_N).tanh()
        yield Scored(row_N.sign() * size_N, intra_N, inter_N)


def scaled(score_N: torch.Tensor, keep: float) -> torch.Tensor:
    """s: a shard's scores above their (1 - keep) quantile, from 0 to 1; 0 below it, or where no score is above."""
    lowest = float(_nth(score_N, int(len(score_N) * (1 - keep))))
    return _within(score_N.clamp(min=lowest), _Ends(lowest, float(score_N.max())))


def _together(rows: Sequence[torch.Tensor], ends: Sequence[_Ends], variant: Variant) -> torch.Tensor:
    """The sum of the changes, or of the scaled ones in `vision`; `evolution` compares each pair, and has none."""
    found_N = torch.zeros_like(rows[0])
    for row_N, end in zip(rows, ends, strict=True):
        if variant != "evolution":
            found_N += _signed(row_N, end) if variant == "vision" else row_N
    return found_N


def _ends(row_N: torch.Tensor, tail: float) -> _Ends:
    """The magnitudes at which both tails, this share of the entries each, are clipped."""
    size_N = row_N.abs()
    last = max(int(len(size_N) * (1 - tail)) - 1, 0)
    return _Ends(float(_nth(size_N, int(len(size_N) * tail))), float(_nth(size_N, last)))


def _nth(values_N: torch.Tensor, position: int) -> torch.Tensor:
    """The value at a position of the sorted values, from 0."""
    return values_N.kthvalue(min(position, len(values_N) - 1) + 1).values


def _within(values_N: torch.Tensor, end: _Ends) -> torch.Tensor:
    """Values between two ends, from 0 to 1; 0 where the ends are equal."""
    return (values_N - end.low) / ((end.high - end.low) or 1.0)


def _signed(row_N: torch.Tensor, end: _Ends) -> torch.Tensor:
    """A change with its clipped magnitudes from 0 to 1, and its signs."""
    return row_N.sign() * _within(row_N.abs().clamp(*end), end)
