"""The Muon optimizer: orthogonalized momentum for weight matrices (Jordan et al. 2024, "Muon").

PyTorch's own implementation works in bfloat16, which is slow on many CPUs; this one works in float32.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalized(matrix: torch.Tensor, *, num_steps: int = 5) -> torch.Tensor:
    """Orthogonalize a matrix by Newton-Schulz iteration: same singular vectors, singular values near 1.

    Each step is X <- a X + (b A + c A^2) X with A = X X^T.

    Args:
        matrix: Of shape (rows, columns), in float32.
        num_steps: Iterations; five bring the singular values to between about 0.7 and 1.2.
    """
    a, b, c = _COEFFICIENTS
    wide = matrix.mT if matrix.size(0) > matrix.size(1) else matrix
    x: torch.Tensor = wide / (wide.norm() + 1e-7)
    for _ in range(num_steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if matrix.size(0) > matrix.size(1) else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized; decoupled weight decay.

    Args:
        params: Weight matrices.
        lr: Learning rate; for a tall matrix it is multiplied by sqrt(rows / columns).
        momentum: Share of the previous direction that is kept.
        weight_decay: Weights are multiplied by 1 - lr * weight_decay in a step.
    """

    def __init__(
        self, params: Iterable[torch.nn.Parameter], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                direction = state.setdefault("direction", torch.zeros_like(parameter))
                direction.lerp_(parameter.grad, 1 - group["momentum"])
                step = orthogonalized(parameter.grad.lerp(direction, group["momentum"]))
                scale = max(1.0, parameter.size(0) / parameter.size(1)) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-group["lr"] * scale)
