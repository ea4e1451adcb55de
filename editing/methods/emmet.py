"""EMMET: one update for many facts that maps each key exactly to its value and changes other outputs the least.

"A Unified Framework for Model Editing" (Gupta, Sajnani, Anumanchipalli, EMNLP Findings 2024, arXiv 2403.14236). ROME's
objective, min tr(Delta C0 Delta^T) with W' K = V, for a batch of N keys; with R = V - W K the solution is

    Delta = R (K^T C0^-1 K + ridge I)^-1 K^T C0^-1

One edit is ROME's update (with the same key on both sides). The ridge keeps equal or nearly equal keys solvable; as
published, it is added for more than one edit only.

Checked against: keys, residuals and updates of a published implementation (golden data), W' k = v* to 1e-8 without the
ridge, and ROME for one edit.

Differences from the reference: contexts are sampled with a recorded seed; C0 is factorized once, in float64, and never
inverted; where equal keys make the system singular, the pseudo-inverse is used, and the log says so (`pseudo_inverse`).

Shapes: N edits, I inputs and O outputs of a projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from overedit.editing.methods.base import CovarianceOptions, Method, Range
from overedit.editing.methods.locate_then_edit.algorithm import LayerProblem, LocateThenEdit, locate_then_edit
from overedit.editing.methods.locate_then_edit.solvers import Solution, equality
from overedit.editing.methods.locate_then_edit.value_options import RANGES as VALUE_RANGES
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions


class Emmet(LocateThenEdit):
    """Settings of EMMET."""

    method: Literal["emmet"] = "emmet"
    """The method's name."""
    covariance_weight: float = Field(default=1.0, gt=0)
    """w: scales C0 against the ridge (published settings: 1,000 for GPT-2 XL, 1 for Llama-2-7B)."""
    ridge: float = Field(default=0.1, ge=0)
    """Added to the diagonal of K^T (w C0)^-1 K for more than one edit (published settings)."""


PRESETS: Mapping[str, Emmet] = MappingProxyType(
    {
        # published configurations of arXiv 2403.14236
        "openai-community/gpt2-xl": Emmet(layers=(17,), covariance_weight=1_000),
        "EleutherAI/gpt-j-6b": Emmet(layers=(5,)),
        "meta-llama/Llama-2-7b-hf": Emmet(layers=(5,), covariance_weight=1),
        # chosen by a search on edits that no benchmark of the pocket world has: tasks/pocket_world/presets
        "pocket": Emmet(
            layers=(0, 1),
            covariance_weight=86.87,
            ridge=2.697,
            values=ValueOptions(learning_rate=2.2, weight_decay=0.03594, clamp_norm_factor=5.284),
            covariance=CovarianceOptions(corpus="pocket", num_samples=2000),
        ),
        # the layer of Llama-2's; no source confirms them
        "meta-llama/Meta-Llama-3-8B-Instruct": Emmet(layers=(5,)),
        "mistralai/Mistral-7B-v0.1": Emmet(layers=(5,)),
        "Qwen/Qwen2.5-7B-Instruct": Emmet(layers=(5,)),
    }
)
"""Model id -> published settings."""


def solve(problem: LayerProblem, config: Emmet) -> Solution:
    """The objective's solution; a single edit needs no ridge."""
    ridge = config.ridge if problem.targets.keys_IN.shape[1] > 1 else 0.0
    return equality(problem.targets, problem.moment.cholesky_II, weight=config.covariance_weight, ridge=ridge)


emmet = locate_then_edit(solve)
"""Edit all requests of a turn at once."""

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        **VALUE_RANGES,
        "covariance_weight": Range(low=10, high=1e5, log=True),
        "ridge": Range(low=1e-3, high=1e1, log=True),
    }
)
"""Setting -> the values among which a search chooses, for models of any size."""

METHOD = Method(
    config=Emmet,
    function=emmet,
    label="EMMET",
    paper="A Unified Framework for Model Editing, arXiv 2403.14236",
    presets=PRESETS,
    ranges=RANGES,
)
