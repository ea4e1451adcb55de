"""Running moments of keys and gradients with the gradients' covariance, and the whitening that it gives.

Shapes: R rows, I inputs and O outputs of a projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from overedit.editing.methods.base import State
from overedit.editing.methods.gradients.answer_gradients import ModuleGradients
from overedit.editing.methods.gradients.running_moments import Moments
from overedit.editing.methods.gradients.turn import shape_of

EIGENVALUE_FLOOR = 1e-6
"""Eigenvalues of the gradients' covariance are at least this (published implementation)."""


class Whitening(NamedTuple):
    """The inverse square root of a covariance."""

    matrix_OO: torch.Tensor
    """Symmetric, float64."""
    num_clamped: int
    """Eigenvalues that were raised to the floor."""


class GradientMoments(NamedTuple):
    """Moments of all rows so far of modules of one shape."""

    features: Moments
    """Of [key, gradient]."""
    scatter_OO: torch.Tensor
    """Sum over the rows of the outer products of the gradients' deviations from their mean, float64."""

    @classmethod
    def load(cls, state: State, name: str, rows: ModuleGradients) -> GradientMoments:
        """Read the moments that `stored` wrote under a name, to the device of the rows; zeros where there are none."""
        device, width = rows.keys.device, rows.gradients.shape[1]
        features = Moments.load(state, name, device)
        if features is None:
            zeros_OO = torch.zeros(width, width, dtype=torch.float64, device=device)
            return cls(Moments.none(rows.keys.shape[1] + width, device), zeros_OO)
        return cls(features, state[f"{name}.scatter"].to(device))

    def stored(self, name: str) -> State:
        """The moments as CPU tensors: those of `Moments.stored`, and `<name>.scatter` (O, O) in float64."""
        return self.features.stored(name) | {f"{name}.scatter": self.scatter_OO.cpu()}

    def merge(self, rows: ModuleGradients) -> GradientMoments:
        """The moments with more rows, at least one, merged in."""
        features, before = self.features.merge(torch.cat(rows, 1)), self.features.num_rows
        deviations_RO = rows.gradients.to(torch.float64, copy=True)
        mean_O = deviations_RO.mean(0)
        deviations_RO -= mean_O
        shift_O = mean_O - self.features.mean_F[-len(mean_O) :]
        between_OO = torch.outer(shift_O, shift_O) * (before * len(deviations_RO) / features.num_rows)
        return GradientMoments(features, self.scatter_OO + deviations_RO.T @ deviations_RO + between_OO)

    def whitening(self) -> Whitening | None:
        """Sigma^-1/2 of Sigma = scatter / (n - O - 1); None for n rows up to O + 1. NaN and infinity give NaN."""
        divisor = self.features.num_rows - len(self.scatter_OO) - 1
        if divisor <= 0:
            return None
        if not bool(self.scatter_OO.isfinite().all()):  # eigh would raise an error
            return Whitening(torch.full_like(self.scatter_OO, torch.nan), 0)
        eigenvalues_O, vectors_OO = torch.linalg.eigh(self.scatter_OO / divisor)
        scale_O = eigenvalues_O.clamp(min=EIGENVALUE_FLOOR).rsqrt()
        return Whitening((vectors_OO * scale_O) @ vectors_OO.T, int((eigenvalues_O < EIGENVALUE_FLOOR).sum()))


def gradient_moments(modules: Mapping[str, ModuleGradients], state: State) -> dict[str, GradientMoments]:
    """The moments after a turn, by shape, given its keys and gradients and the state before."""
    moments: dict[str, GradientMoments] = {}
    for rows in modules.values():
        shape = shape_of(rows)
        moments[shape] = (moments.get(shape) or GradientMoments.load(state, shape, rows)).merge(rows)
    return moments
