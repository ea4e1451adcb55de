"""R-ROME: ROME with the same key in every term.

"Rebuilding ROME: Resolving Model Collapse during Sequential Model Editing" (Gupta, Baskaran, Anumanchipalli, EMNLP
2024, arXiv 2403.07175); the same correction is C-ROME of "The Fall of ROME" (Yang et al. 2024, arXiv 2406.11263). With
k* the mean key over contexts,

    W' = W + (v* - W k*) (C0^-1 k*)^T / ((C0^-1 k*)^T k*)

ROME's reference takes the bare prompt's key for W k* and in the denominator; that collapses a model when the
subject of an edit is at the start of its prompt.

Checked against: W' k* = v* to 1e-8, and ROME where the bare prompt is the only context.

Differences from the reference: as ROME.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from overedit.editing.methods.base import CovarianceOptions, Method, Range
from overedit.editing.methods.locate_then_edit.algorithm import LayerProblem, locate_then_edit
from overedit.editing.methods.locate_then_edit.solvers import Solution, equality
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions
from overedit.editing.methods.rome import PRESETS as ROME_PRESETS
from overedit.editing.methods.rome import RANGES as ROME_RANGES
from overedit.editing.methods.rome import RankOneSettings


class RRome(RankOneSettings):
    """Settings of R-ROME."""

    method: Literal["r_rome"] = "r_rome"
    """The method's name."""


PRESETS: Mapping[str, RRome] = MappingProxyType(
    {
        model: RRome.model_validate(preset.model_dump(exclude_unset=True, exclude={"method"}))
        for model, preset in ROME_PRESETS.items()
    }
    | {
        # chosen by a search on edits that no benchmark of the pocket world has: tasks/pocket_world/presets
        "pocket": RRome(
            layers=(0,),
            values=ValueOptions(num_steps=25, learning_rate=1.679, weight_decay=5.863e-4, clamp_norm_factor=6.954),
            covariance=CovarianceOptions(corpus="pocket", num_samples=2000),
        )
    }
)
"""Model id -> ROME's settings, but for the pocket world."""


def solve(problem: LayerProblem, _: RRome) -> Solution:
    """Equation 2 of ROME with the mean key everywhere: the exact solution for each key."""
    return equality(problem.targets, problem.moment.cholesky_II, weight=1.0)


r_rome = locate_then_edit(solve, keys_in_residual=True)
"""Edit a turn's requests one after another, each on the model as edited so far."""

RANGES: Mapping[str, Range] = ROME_RANGES
"""Those of ROME."""

METHOD = Method(
    config=RRome,
    function=r_rome,
    label="R-ROME",
    paper="Rebuilding ROME: Resolving Model Collapse during Sequential Model Editing, arXiv 2403.07175",
    presets=PRESETS,
    ranges=RANGES,
)
