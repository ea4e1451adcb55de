"""How the residual is spread over the edited layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

Distribution = Literal["single", "spread", "root", "own"]
SHARES: Mapping[Distribution, Callable[[int], float]] = MappingProxyType(
    {
        "single": lambda _: 1.0,
        "spread": lambda left: 1 / left,
        "root": lambda left: 1 / math.sqrt(left),
        "own": lambda _: 1.0,
    }
)
"""The share of the residual that a layer takes, by the number of layers left, itself included.

`single`: all of it, by the only layer (ROME, EMMET). `spread`: an even share of what is left (MEMIT, algorithm 1, line
20). `root`: more for the earlier ones (PMET, arXiv 2308.08742, section 4.3). `own`: each layer all of the residual to a
value optimized at that layer, on the model with the earlier ones written (BLUE, arXiv 2502.03748; it names two layers).
"""
