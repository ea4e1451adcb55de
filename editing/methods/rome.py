"""ROME: one fact at a time, as a rank-one update of one MLP's second projection.

"Locating and Editing Factual Associations in GPT" (Meng et al., NeurIPS 2022, arXiv 2202.05262). With the subject's key
k*, the value v* that makes the model say the new object (eq. 4), and C0 = E[k k^T], equation 2 is

    W' = W + Lambda (C0^-1 k*)^T,     Lambda = (v* - W k*) / ((C0^-1 k*)^T k*)

As published, the direction C0^-1 k* uses the mean of the key over contexts (eq. 3), and all other terms the key of the
bare prompt. Where the subject is at the start of the prompt, the two differ much, the denominator becomes tiny and the
update huge; R-ROME (`r_rome.py`) uses the mean key everywhere.

Checked against: keys, values and updates of a published implementation (golden data), and W' k = v* to 1e-8.

Differences from the reference: contexts are sampled with a recorded seed; C0 is factorized in float64, not inverted.

Shapes: I inputs and O outputs of a projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from overedit.editing.methods.base import CovarianceOptions, Method, Range
from overedit.editing.methods.locate_then_edit.algorithm import (
    LayerProblem,
    LocateThenEdit,
    locate_then_edit,
)
from overedit.editing.methods.locate_then_edit.distribution import Distribution
from overedit.editing.methods.locate_then_edit.solvers import Solution, rank_one
from overedit.editing.methods.locate_then_edit.value_options import RANGES as VALUE_RANGES
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions


class RankOneSettings(LocateThenEdit):
    """Settings of ROME and R-ROME; the defaults are ROME's published ones."""

    value_at: Literal["mlp", "layer"] = "mlp"
    """The value is the MLP's output (section 3.1)."""
    distribution: Distribution = "single"
    """One layer."""
    batch_size: Literal[1] = 1
    """One edit at a time."""
    values: ValueOptions = ValueOptions(num_steps=20, clamp_norm_factor=4)
    """How the value is optimized (published settings)."""


class Rome(RankOneSettings):
    """Settings of ROME."""

    method: Literal["rome"] = "rome"
    """The method's name."""


PRESETS: Mapping[str, Rome] = MappingProxyType(
    {
        # arXiv 2202.05262, appendix E.5
        "openai-community/gpt2-xl": Rome(layers=(17,)),
        "EleutherAI/gpt-j-6b": Rome(layers=(5,)),
        # chosen by a search on edits that no benchmark of the pocket world has: tasks/pocket_world/presets
        "pocket": Rome(
            layers=(0,),
            values=ValueOptions(num_steps=25, learning_rate=2.21, weight_decay=0.1965, clamp_norm_factor=3.581),
            covariance=CovarianceOptions(corpus="pocket", num_samples=2000),
        ),
        # in common use for these models; no source confirms them
        "meta-llama/Llama-2-7b-hf": Rome(
            layers=(5,), values=ValueOptions(num_steps=25, weight_decay=1e-3, clamp_norm_factor=4)
        ),
        "meta-llama/Meta-Llama-3-8B-Instruct": Rome(
            layers=(5,), values=ValueOptions(num_steps=25, weight_decay=1e-3, clamp_norm_factor=4)
        ),
        "mistralai/Mistral-7B-v0.1": Rome(
            layers=(5,), values=ValueOptions(num_steps=25, weight_decay=1e-3, clamp_norm_factor=4)
        ),
        "Qwen/Qwen2.5-7B-Instruct": Rome(
            layers=(5,), values=ValueOptions(num_steps=25, weight_decay=1e-3, clamp_norm_factor=4)
        ),
    }
)
"""Model id -> published settings."""


def solve(problem: LayerProblem, _: Rome) -> Solution:
    """Equation 2, with the mean key in the direction alone."""
    return rank_one(problem.targets, problem.moment.cholesky_II, at_IN=problem.bare_keys_IN)


rome = locate_then_edit(solve)
"""Edit a turn's requests one after another, each on the model as edited so far."""

RANGES: Mapping[str, Range] = VALUE_RANGES
"""Setting -> the values among which a search chooses, for models of any size."""

METHOD = Method(
    config=Rome,
    function=rome,
    label="ROME",
    paper="Locating and Editing Factual Associations in GPT, arXiv 2202.05262",
    presets=PRESETS,
    ranges=RANGES,
)
