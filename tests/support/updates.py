"""Updates as plain matrices."""

from __future__ import annotations

from typing import Any

import torch

from overedit.editing.model.weights import LowRank


def dense(change: Any) -> torch.Tensor:
    return change.left @ change.right if isinstance(change, LowRank) else change.tensor
