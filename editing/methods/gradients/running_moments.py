"""Running mean and variance of features over all edits of a trajectory.

Shapes: R rows, F features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from overedit.editing.methods.base import State


class Moments(NamedTuple):
    """Moments of all rows so far."""

    num_rows: int
    mean_F: torch.Tensor
    """float64."""
    m2_F: torch.Tensor
    """Sum of squared deviations from the mean, float64."""

    @classmethod
    def none(cls, num_features: int, device: torch.device) -> Moments:
        """The moments before the first row."""
        zeros_F = torch.zeros(num_features, dtype=torch.float64, device=device)
        return cls(0, zeros_F, zeros_F)

    @classmethod
    def load(cls, state: State, name: str, device: torch.device) -> Moments | None:
        """Read the moments that `stored` wrote under a name; None where there are none."""
        if f"{name}.count" not in state:
            return None
        mean_F, m2_F = (state[f"{name}.{part}"].to(device) for part in ("mean", "m2"))
        return cls(int(state[f"{name}.count"]), mean_F, m2_F)

    def stored(self, name: str) -> State:
        """The moments as CPU tensors: `<name>.count` (int64), `<name>.mean` and `<name>.m2` (float64)."""
        count = torch.tensor(self.num_rows)
        return {f"{name}.count": count, f"{name}.mean": self.mean_F.cpu(), f"{name}.m2": self.m2_F.cpu()}

    def merge(self, rows_RF: torch.Tensor, *, inflated: bool = False) -> Moments:
        """The moments with more rows, at least one, merged in (the pairwise update of Chan, Golub and LeVeque 1979).

        Args:
            rows_RF: Any floating dtype.
            inflated: Add R times the unbiased variance of the rows instead of their sum of squares.
        """
        count, total = len(rows_RF), self.num_rows + len(rows_RF)
        deviations_RF = rows_RF.to(torch.float64, copy=True)
        mean_F = deviations_RF.mean(0)
        m2_F = deviations_RF.sub_(mean_F).square_().sum(0)
        if inflated and count > 1:
            m2_F *= count / (count - 1)
        shift_F = mean_F - self.mean_F
        return Moments(
            total,
            self.mean_F + shift_F * (count / total),
            self.m2_F + m2_F + shift_F.square() * (self.num_rows * count / total),
        )

    def normalise(self, rows_RF: torch.Tensor, features: slice = slice(None), *, epsilon: float = 0.0) -> torch.Tensor:
        """Deviations from the mean in standard deviations, float64; a feature that never varied becomes 0.

        Args:
            rows_RF: Any floating dtype.
            features: The features that the rows hold.
            epsilon: Added to the standard deviations.
        """
        mean_F = self.mean_F[features]
        std_F = (self.m2_F[features] / max(self.num_rows - 1, 1)).sqrt()
        varies_F = std_F > 1e-12 * mean_F.abs()  # below, the deviation is rounding error of the mean
        scale_F = torch.where(varies_F, 1 / (std_F + epsilon), torch.zeros_like(std_F))
        return rows_RF.to(torch.float64, copy=True).sub_(mean_F).mul_(scale_F)
