"""Cross-entropy and its gradient with respect to the logits, in closed form.

Shapes: U positions, V vocabulary.
"""

from __future__ import annotations

import torch


def cross_entropy_gradient(
    log_p_UV: torch.Tensor, labels_U: torch.Tensor, weights_U: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Negative log-likelihoods, and the gradient of their weighted sum with respect to the logits: weight * (p - 1_y).

    Args:
        log_p_UV: Log-softmax of the logits; overwritten by the gradient.
        labels_U: int64.
        weights_U: Weight of each position in the sum.

    Returns:
        (U) nats, and the gradient (U, V), which has taken the memory of `log_p_UV`.
    """
    every = torch.arange(len(labels_U), device=labels_U.device)
    nll_U = -log_p_UV[every, labels_U]
    gradient_UV = log_p_UV.exp_()
    gradient_UV[every, labels_U] -= 1
    return nll_U, gradient_UV.mul_(weights_U[:, None])
