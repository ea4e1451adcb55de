"""Solvers of the editing objective: map given keys to new values, and change the output for other keys the least.

A projection W is an associative memory of keys k. An edit asks for W' k_n = v_n at N keys K = [k_1 .. k_N]. All other
outputs should stay; the covariance C0 = E[k k^T] of the keys of ordinary text describes them. With the residual
R = V - W K and Delta = W' - W, there are three solutions (EMMET, arXiv 2403.14236, derives the first two):

* equality: min tr(Delta C0 Delta^T) with Delta K = R exactly (ROME eq. 2 for one key, EMMET for more),
* least squares: min w tr(Delta C0 Delta^T) + |Delta K - R|^2 (MEMIT, arXiv 2210.07229, eq. 14),
* null space: min |Delta K - R|^2 + |Delta K_p|^2 + l |Delta|^2 with Delta = Delta P, where P projects on directions in
  which C0 ~ 0, and K_p are the keys edited before (AlphaEdit, arXiv 2410.02355, eq. 14).

The first two are one formula. With A = w C0 and S = K^T A^-1 K,

    Delta = R (S + ridge I)^-1 K^T A^-1

is the first for a ridge of 0 and the second for a ridge of 1 (the Woodbury identity: A^-1 K (I + S)^-1 =
(A + K K^T)^-1 K); EMMET's own ridge is between the two. `docs/locate-then-edit.md` derives it.

Shapes: I inputs and O outputs of the projection, N keys, M dimensions of the null space. All float64.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from overedit.editing.methods.locate_then_edit.covariance import SecondMoment
from overedit.editing.model.weights import LowRank

logger = logging.getLogger(__name__)

MAX_CONDITION = 1e13
"""Systems with a larger condition number use the pseudo-inverse: float64 would leave no significant digits."""


class KeyTargets(NamedTuple):
    """The keys of an edit, and the outputs that the projection lacks at them."""

    keys_IN: torch.Tensor
    residual_ON: torch.Tensor
    """V - W K, the missing output at those keys."""


class Solution(NamedTuple):
    """Delta = residual_ON @ weights_NI."""

    residual_ON: torch.Tensor
    weights_NI: torch.Tensor
    condition_number: float
    """Of the N x N (or M x M) system, a lower bound (from its Cholesky factor)."""
    pseudo_inverse: bool = False
    """The system was singular (equal keys) and was solved in the least-squares sense: equal keys get their mean."""

    def as_update(self, dtype: torch.dtype, *, in_out: bool) -> LowRank:
        """Delta as factors of the stored weight, float32 (float64 for a float64 model)."""
        kept_dtype = torch.promote_types(dtype, torch.float32)
        left_ON, right_NI = self.residual_ON.to(kept_dtype), self.weights_NI.to(kept_dtype)
        return LowRank(right_NI.T.contiguous(), left_ON.T) if in_out else LowRank(left_ON, right_NI)


def equality(
    targets: KeyTargets, covariance_cholesky_II: torch.Tensor, *, weight: float, ridge: float = 0.0
) -> Solution:
    """Delta K = R exactly, with the least change on ordinary text (ROME for one key, EMMET for several).

    Args:
        targets: At least one key.
        covariance_cholesky_II: L with C0 = L L^T.
        weight: w, the covariance's weight; it has no effect for a ridge of 0.
        ridge: Added to the diagonal of S; needed for equal or nearly equal keys.
    """
    keyed_IN = torch.cholesky_solve(targets.keys_IN, covariance_cholesky_II) / weight  # A^-1 K
    system_NN = targets.keys_IN.T @ keyed_IN
    return _by_keys(targets, system_NN, ridge, keyed_IN.T)


def by_inverse(targets: KeyTargets, inverse_II: torch.Tensor) -> Solution:
    """Delta = R K^T (A + K K^T)^-1 = R (I + K^T F)^-1 F^T with F = A^-1 K, for an inverse A^-1 that is known."""
    keyed_IN = inverse_II @ targets.keys_IN
    return _by_keys(targets, targets.keys_IN.T @ keyed_IN, 1.0, keyed_IN.T)


def rank_one(targets: KeyTargets, covariance_cholesky_II: torch.Tensor, *, at_IN: torch.Tensor) -> Solution:
    """ROME as published: an update in the direction of the mean key, exact at another key (ROME eq. 2).

    Delta = r (C0^-1 k)^T / ((C0^-1 k)^T k'), so that Delta k' = r.

    Args:
        targets: One key k, and the residual r at k'.
        covariance_cholesky_II: L with C0 = L L^T.
        at_IN: k', (I, 1).
    """
    direction_IN = torch.cholesky_solve(targets.keys_IN, covariance_cholesky_II)
    weights_NI = direction_IN.T / (direction_IN.T @ at_IN)
    return Solution(targets.residual_ON, weights_NI, 1.0)


def least_squares(targets: KeyTargets, covariance_cholesky_II: torch.Tensor, *, weight: float) -> Solution:
    """Delta = R K^T (w C0 + K K^T)^-1 (MEMIT eq. 14), solved as an N x N or an I x I system, whichever is smaller."""
    keys_IN = targets.keys_IN
    if keys_IN.shape[1] <= keys_IN.shape[0]:
        return equality(targets, covariance_cholesky_II, weight=weight, ridge=1.0)
    system_II = torch.addmm(keys_IN @ keys_IN.T, covariance_cholesky_II, covariance_cholesky_II.T, alpha=weight)
    solved_IN, condition, pseudo_inverse = _solved(system_II, keys_IN)
    return Solution(targets.residual_ON, solved_IN.T, condition, pseudo_inverse)


def accumulated(
    targets: KeyTargets, covariance_II: torch.Tensor, earlier_II: torch.Tensor | None, *, weight: float, ridge: float
) -> Solution:
    """Delta = R K^T (w C0 + K_p K_p^T + l I + K K^T)^-1 (ENCORE, arXiv 2502.01636), solved as an I x I system.

    Args:
        targets: At least one key.
        covariance_II: C0.
        earlier_II: K_p K_p^T, the keys of the batches before; None before the first.
        weight: w.
        ridge: l, 0 or above.
    """
    system_II = torch.addmm(covariance_II, targets.keys_IN, targets.keys_IN.T, beta=weight)
    if earlier_II is not None:
        system_II += earlier_II
    system_II.diagonal().add_(ridge)
    solved_IN, condition, pseudo_inverse = _solved(system_II, targets.keys_IN)
    return Solution(targets.residual_ON, solved_IN.T, condition, pseudo_inverse)


def check_threshold(config: Any, covariance: Mapping[str, SecondMoment]) -> None:
    """Refuse a `threshold` of a configuration that is below every eigenvalue of a site's C0, with a ValueError."""
    for site in config.sites:
        smallest = float(covariance[site].eigen.eigenvalues[0])
        if smallest >= config.threshold:
            raise ValueError(
                f"threshold: no eigenvalue of {site}'s covariance is below {config.threshold}; the smallest is "
                f"{smallest:.2e}"
            )


def null_space(
    targets: KeyTargets, basis_IM: torch.Tensor, earlier_II: torch.Tensor | None, *, ridge: float
) -> Solution:
    """Delta = R K^T P (K_p K_p^T P + K K^T P + l I)^-1 (AlphaEdit eq. 14), in coordinates of the null space.

    P = U U^T for an orthonormal basis U, whose span holds every solution, so the system is M x M and symmetric:
    Delta = R (U^T K)^T (U^T (K_p K_p^T + K K^T) U + l I)^-1 U^T.

    Args:
        targets: At least one key.
        basis_IM: U.
        earlier_II: K_p K_p^T, the keys of the turns before; None before the first.
        ridge: l, above 0.
    """
    inside_MN = basis_IM.T @ targets.keys_IN
    if earlier_II is None and inside_MN.shape[1] < inside_MN.shape[0]:  # the same, as a system of the keys
        return _by_keys(targets, inside_MN.T @ inside_MN, ridge, (basis_IM @ inside_MN).T)
    system_MM = inside_MN @ inside_MN.T
    if earlier_II is not None:
        system_MM += basis_IM.T @ earlier_II @ basis_IM
    system_MM.diagonal().add_(ridge)
    solved_MN, condition, pseudo_inverse = _solved(system_MM, inside_MN)
    return Solution(targets.residual_ON, solved_MN.T @ basis_IM.T, condition, pseudo_inverse)


def _by_keys(targets: KeyTargets, system_NN: torch.Tensor, ridge: float, right_NI: torch.Tensor) -> Solution:
    """Delta = R (system + ridge I)^-1 right."""
    system_NN = (system_NN + system_NN.T) / 2
    system_NN.diagonal().add_(ridge)
    return Solution(targets.residual_ON, *_solved(system_NN, right_NI))


def _solved(system_SS: torch.Tensor, right_SX: torch.Tensor) -> tuple[torch.Tensor, float, bool]:
    """system^-1 right, by Cholesky or else by the pseudo-inverse; the condition number; whether the latter was used."""
    factor_SS, failed = torch.linalg.cholesky_ex(system_SS)
    condition = _condition(factor_SS) if not failed else float("inf")
    if condition < MAX_CONDITION or not bool(system_SS.isfinite().all()):
        return torch.cholesky_solve(right_SX, factor_SS), condition, False
    logger.warning(
        "a system of %d is singular or nearly so, as equal keys make it (condition number %.1e): solved by the "
        "pseudo-inverse, which gives equal keys the mean of their values; a ridge avoids it",
        len(system_SS),
        condition,
    )
    inverse_SS = torch.linalg.pinv(system_SS, hermitian=True, rtol=1 / MAX_CONDITION)
    return inverse_SS @ right_SX, condition, True


def _condition(factor_NN: torch.Tensor) -> float:
    diagonal_N = factor_NN.diagonal().abs()
    return float((diagonal_N.max() / diagonal_N.min()).square())
