"""Merging an edited model with its base: a straight line between the two in weight space (arXiv 2208.05592)."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def merged(
    edited: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """Compute base + share * (edited - base), in float64 and rounded once.

    Args:
        edited: Parameter name -> edited tensor.
        base: The pristine values of the same parameters, or of more.
        share: 0 gives the base, 1 the edited model.

    Returns:
        Parameter name -> merged tensor, in the dtype of the edited one.
    """
    found = {}
    for name, tensor in edited.items():
        start = base[name].double()
        found[name] = (start + share * (tensor.double() - start)).to(tensor.dtype)
    return found
