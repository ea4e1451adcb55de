"""MEMIT: many facts in one least-squares update of several layers.

"Mass-Editing Memory in a Transformer" (Meng et al., ICLR 2023, arXiv 2210.07229). With keys K and the residual R of the
layer, R = (z - h) / (layers left), equation 14 is

    Delta = R K^T (w C0 + K K^T)^-1

Values z are optimized at the last edited layer's output (eq. 16), keys are means over contexts (eq. 19), and each layer
is written before the next one's keys are read (algorithm 1).

Checked against: keys, residuals and updates of a published implementation (golden data), and its normal equations.

Differences from the reference: contexts are sampled with a recorded seed; everything is solved in float64 with C0
factorized once; the update is added in float32 and rounded once.

Shapes: N edits, I inputs and O outputs of a projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from overedit.editing.methods.base import CovarianceOptions, Method, Range
from overedit.editing.methods.locate_then_edit.algorithm import LayerProblem, LocateThenEdit, locate_then_edit
from overedit.editing.methods.locate_then_edit.solvers import Solution, least_squares
from overedit.editing.methods.locate_then_edit.value_options import RANGES as VALUE_RANGES
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions


class Memit(LocateThenEdit):
    """Settings of MEMIT."""

    method: Literal["memit"] = "memit"
    """The method's name."""
    covariance_weight: float = Field(default=15_000, gt=0)
    """w: weight of preserved keys against edited ones (15,000 for GPT-J, section 5.2)."""


PRESETS: Mapping[str, Memit] = MappingProxyType(
    {
        # arXiv 2210.07229, section 5.2 and appendix B.3
        "openai-community/gpt2-xl": Memit(layers=(13, 14, 15, 16, 17), covariance_weight=20_000),
        "EleutherAI/gpt-j-6b": Memit(layers=(3, 4, 5, 6, 7, 8), covariance_weight=15_000),
        # a search on edits that no benchmark of the pocket world has found nothing better: tasks/pocket_world/presets
        "pocket": Memit(
            layers=(0, 1),
            covariance_weight=300,
            values=ValueOptions(learning_rate=2.0, weight_decay=1e-3, clamp_norm_factor=1.0),
            covariance=CovarianceOptions(corpus="pocket", num_samples=2000),
        ),
        # in common use for these models; no source confirms them
        "meta-llama/Llama-2-7b-hf": Memit(
            layers=(4, 5, 6, 7, 8), values=ValueOptions(weight_decay=1e-3, clamp_norm_factor=4)
        ),
        "meta-llama/Meta-Llama-3-8B-Instruct": Memit(layers=(4, 5, 6, 7, 8), values=ValueOptions(learning_rate=0.1)),
        "mistralai/Mistral-7B-v0.1": Memit(
            layers=(4, 5, 6, 7, 8), values=ValueOptions(weight_decay=1e-3, clamp_norm_factor=4)
        ),
        "Qwen/Qwen2.5-7B-Instruct": Memit(layers=(4, 5, 6, 7, 8), values=ValueOptions(learning_rate=0.1)),
    }
)
"""Model id -> published settings."""


def solve(problem: LayerProblem, config: Memit) -> Solution:
    """Equation 14."""
    return least_squares(problem.targets, problem.moment.cholesky_II, weight=config.covariance_weight)


memit = locate_then_edit(solve)
"""Edit all requests of a turn at once."""

RANGES: Mapping[str, Range] = MappingProxyType({**VALUE_RANGES, "covariance_weight": Range(low=10, high=1e5, log=True)})
"""Setting -> the values among which a search chooses, for models of any size."""

METHOD = Method(
    config=Memit,
    function=memit,
    label="MEMIT",
    paper="Mass-Editing Memory in a Transformer, arXiv 2210.07229",
    presets=PRESETS,
    ranges=RANGES,
)
