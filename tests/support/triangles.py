"""Symmetric matrices, which the golden numbers keep as their lower triangle."""

from __future__ import annotations

from math import isqrt

import torch


def symmetric(triangle: torch.Tensor) -> torch.Tensor:
    """The whole matrix of a lower triangle that is kept row after row."""
    size = isqrt(2 * len(triangle))
    below, left = torch.tril_indices(size, size)
    matrix = triangle.new_empty(size, size)
    matrix[below, left] = matrix[left, below] = triangle
    return matrix
