"""MEMIT whose system remembers the keys of all edits before: a sequence of batches equals one large batch.

"Lifelong Knowledge Editing requires Better Regularization" (Gupta et al., arXiv 2502.01636, ENCORE) adds the keys K_p
of all earlier edits and a ridge to MEMIT's equation 14:

    Delta = R K^T (w C0 + K_p K_p^T + l I + K K^T)^-1

"OTE-SE" (arXiv 2605.26670) shows that with frozen keys this makes b batches the same as one batch of all their edits.
ENCORE also stops the optimization of a value early: `values: {stop_after_hits: 2}`.

Checked against: keys, residuals, sums and updates of a published implementation (golden data), the identity of batches,
and MEMIT for the first batch without a ridge.

Shapes: N edits, I inputs and O outputs of a projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal

from pydantic import Field

from overedit.editing.methods.base import Method, Range
from overedit.editing.methods.locate_then_edit.algorithm import LayerProblem, LocateThenEdit, locate_then_edit
from overedit.editing.methods.locate_then_edit.earlier_keys import earlier_keys, with_keys
from overedit.editing.methods.locate_then_edit.solvers import Solution, accumulated
from overedit.editing.methods.locate_then_edit.value_options import RANGES as VALUE_RANGES
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions
from overedit.editing.model.shape import SiteShape


class MemitSeq(LocateThenEdit):
    """Settings of MEMIT with accumulated keys."""

    matrices_per_site: ClassVar[int] = 3
    """C0, the system, and its Cholesky factor."""
    state_matrices: ClassVar[int] = 1
    """K_p K_p^T."""

    method: Literal["memit_seq"] = "memit_seq"
    """The method's name."""
    covariance_weight: float = Field(default=15_000, gt=0)
    """w: weight of preserved keys against edited ones."""
    ridge: float = Field(default=0.0, ge=0)
    """l: weight of |Delta|^2 (20 for Llama-3-8B, 10 for GPT-2 XL, published settings of ENCORE)."""

    def solve_operations(self, site: SiteShape, num_edits: int) -> float:
        """The same as others', and I^3 / 3 of the system's factor in float64, which counts twice."""
        return super().solve_operations(site, num_edits) + site.inputs**3 / 1.5

    def setup_operations(self, site: SiteShape) -> float:
        """None: C0 alone is not factorized."""
        return 0.0


PRESETS: Mapping[str, MemitSeq] = MappingProxyType(
    {
        # arXiv 2502.01636, published settings
        "openai-community/gpt2-xl": MemitSeq(
            layers=(13, 14, 15, 16, 17), covariance_weight=20_000, ridge=10, values=ValueOptions(stop_after_hits=4)
        ),
        "meta-llama/Meta-Llama-3-8B-Instruct": MemitSeq(
            layers=(4, 5, 6, 7, 8), ridge=20, values=ValueOptions(stop_after_hits=2)
        ),
    }
)
"""Model id -> published settings."""


def solve(problem: LayerProblem, config: MemitSeq) -> Solution:
    """Equation 14 with the earlier keys and the ridge in its system."""
    earlier_II, weight = earlier_keys(problem), config.covariance_weight
    return accumulated(problem.targets, problem.moment.matrix_II, earlier_II, weight=weight, ridge=config.ridge)


memit_seq = locate_then_edit(solve, remember=with_keys)
"""Edit all requests of a turn at once; the state holds K_p K_p^T of each site, float64."""

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        **VALUE_RANGES,
        "covariance_weight": Range(low=10, high=1e5, log=True),
        "ridge": Range(low=1e-2, high=1e3, log=True),
    }
)
"""Setting -> the values among which a search chooses, for models of any size."""

METHOD = Method(
    config=MemitSeq,
    function=memit_seq,
    label="MEMIT-seq",
    paper="Lifelong Knowledge Editing requires Better Regularization, arXiv 2502.01636",
    presets=PRESETS,
    ranges=RANGES,
)
