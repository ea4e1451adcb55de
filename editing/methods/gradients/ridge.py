"""Ridge regression from keys H to targets V as a weight change: (H^T H + ridge I)^-1 H^T V.

Shapes: R rows, I inputs and O outputs of a projection.
"""

from __future__ import annotations

import torch

from overedit.editing.model.weights import Delta, LowRank


def ridge_update(keys_RI: torch.Tensor, targets_RO: torch.Tensor, ridge: float, *, in_out: bool) -> LowRank | Delta:
    """The change of the stored weight, float32; low-rank factors where there are fewer rows than inputs.

    With fewer rows the R x R system (H H^T + ridge I) is solved instead (the dual form; both give the same matrix,
    since H^T (H H^T + ridge I) = (H^T H + ridge I) H^T). Its inverse is applied to the narrower of H and V.

    Args:
        keys_RI: H, float32.
        targets_RO: V, float64.
        ridge: Above 0.
        in_out: The weight is stored as (I, O), not as (O, I).
    """
    keys = keys_RI.double()
    if len(keys) >= keys.shape[1]:
        delta_IO = _solve(keys.T @ keys, keys.T @ targets_RO, ridge).float()
        return Delta(delta_IO if in_out else delta_IO.T.contiguous())
    gram_RR = keys @ keys.T
    if keys.shape[1] <= targets_RO.shape[1]:
        keys_RI, targets_RO = _solve(gram_RR, keys, ridge).float(), targets_RO.float()
    else:
        targets_RO = _solve(gram_RR, targets_RO, ridge).float()
    return LowRank(keys_RI.T, targets_RO) if in_out else LowRank(targets_RO.T, keys_RI)


def _solve(gram_NN: torch.Tensor, right_NK: torch.Tensor, ridge: float) -> torch.Tensor:
    """(gram + ridge I)^-1 right by Cholesky decomposition, float64; NaN and infinity propagate without an error."""
    gram_NN.diagonal().add_(ridge)
    factor_NN = torch.linalg.cholesky_ex(gram_NN).L
    if right_NK.shape[1] <= 2 * len(gram_NN):
        return torch.cholesky_solve(right_NK, factor_NN)
    return torch.cholesky_inverse(factor_NN) @ right_NK  # wide: a product is faster than two triangular solves
