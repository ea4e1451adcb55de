"""AlphaEdit: updates restricted to the null space of the keys to preserve.

"AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models" (Fang et al., ICLR 2025, arXiv 2410.02355). P
projects on the directions in which the keys of ordinary text have almost no variance (eigenvalues of C0 below a
threshold, eq. 7), K_p are the keys of all earlier turns, and equation 14 is

    Delta = R K^T P (K_p K_p^T P + K K^T P + l I)^-1

Values and layers are MEMIT's; K_p K_p^T is the state. As published, a turn's own keys are read after the turn: they are
those before it, since a layer's keys depend on the layers below it alone.

Checked against: projectors, values, updates and states of the published implementation over two turns (golden data),
and Delta K0 = 0 to the projector's tolerance.

Differences from the reference: the system is solved in coordinates of the null space, M x M, symmetric and in float64
(the reference: I x I, in float32); the state is float64 and belongs to the trajectory.

Shapes: N edits, I inputs and O outputs of a projection, M dimensions of its null space.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal

from pydantic import Field

from overedit.editing.methods.base import CovarianceOptions, Method, Range
from overedit.editing.methods.locate_then_edit.algorithm import LayerProblem, LocateThenEdit, locate_then_edit
from overedit.editing.methods.locate_then_edit.earlier_keys import earlier_keys, with_keys
from overedit.editing.methods.locate_then_edit.solvers import Solution, check_threshold, null_space
from overedit.editing.methods.locate_then_edit.value_options import RANGES as VALUE_RANGES
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions
from overedit.editing.model.shape import SiteShape


class AlphaEdit(LocateThenEdit):
    """Settings of AlphaEdit; the defaults are the published ones."""

    matrices_per_site: ClassVar[int] = 4
    """C0, its eigenvectors, those of the null space, and the system in their coordinates."""
    state_matrices: ClassVar[int] = 1
    """K_p K_p^T."""

    method: Literal["alphaedit"] = "alphaedit"
    """The method's name."""
    threshold: float = Field(default=2e-2, gt=0)
    """Eigenvalues of C0 below it span the null space (published settings; C0 is a mean over tokens, not a sum)."""
    ridge: float = Field(default=10.0, gt=0)
    """l, the weight of |Delta|^2 (published settings)."""

    def solve_operations(self, site: SiteShape, num_edits: int) -> float:
        """The same as others', and 4 I^3 + I^3 / 3 of the system, if the null space is all of I; float64 twice."""
        return super().solve_operations(site, num_edits) + (8 + 1 / 1.5) * site.inputs**3

    def setup_operations(self, site: SiteShape) -> float:
        """Operations of the eigenvalues and eigenvectors of one site's C0, about 9 I^3, in float64."""
        return 18.0 * site.inputs**3


PRESETS: Mapping[str, AlphaEdit] = MappingProxyType(
    {
        # arXiv 2410.02355, appendix A.3
        "openai-community/gpt2-xl": AlphaEdit(layers=(13, 14, 15, 16, 17), values=ValueOptions(num_steps=20)),
        "EleutherAI/gpt-j-6b": AlphaEdit(layers=(3, 4, 5, 6, 7, 8)),
        "meta-llama/Meta-Llama-3-8B-Instruct": AlphaEdit(
            layers=(4, 5, 6, 7, 8), values=ValueOptions(learning_rate=0.1)
        ),
        # a search on edits that no benchmark of the pocket world has found nothing better: tasks/pocket_world/presets
        # (C0's eigenvalues are large there)
        "pocket": AlphaEdit(
            layers=(0,),
            threshold=10,
            ridge=300,
            values=ValueOptions(learning_rate=2.0, weight_decay=1e-3, clamp_norm_factor=1.0),
            covariance=CovarianceOptions(corpus="pocket", num_samples=2000),
        ),
        # in common use for these models; no source confirms them
        "meta-llama/Llama-2-7b-hf": AlphaEdit(layers=(4, 5, 6, 7, 8)),
        "mistralai/Mistral-7B-v0.1": AlphaEdit(layers=(4, 5, 6, 7, 8)),
        "Qwen/Qwen2.5-7B-Instruct": AlphaEdit(layers=(4, 5, 6, 7, 8), values=ValueOptions(learning_rate=0.1)),
    }
)
"""Model id -> published settings."""


def solve(problem: LayerProblem, config: AlphaEdit) -> Solution:
    """Equation 14, in coordinates of the null space."""
    basis_IM = problem.moment.null_space(config.threshold)
    return null_space(problem.targets, basis_IM, earlier_keys(problem), ridge=config.ridge)


alphaedit = locate_then_edit(solve, check=check_threshold, remember=with_keys)
"""Edit all requests of a turn at once; the state holds K_p K_p^T of each site, float64."""

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        **VALUE_RANGES,
        "threshold": Range(low=1e-3, high=1e2, log=True),
        "ridge": Range(low=1e-1, high=1e4, log=True),
    }
)
"""Setting -> the values among which a search chooses, for models of any size."""

METHOD = Method(
    config=AlphaEdit,
    function=alphaedit,
    label="AlphaEdit",
    paper="AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models, arXiv 2410.02355",
    presets=PRESETS,
    ranges=RANGES,
)
