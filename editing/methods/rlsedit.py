"""RLSEdit: the least-squares solution over all edits so far, updated recursively.

RLSEdit (arXiv 2601.15686). P is the inverse of the system of all keys so far; with the keys K of a batch and the
residual R,

    P_0 = (l^2 I + m^2 w C0)^-1,   F = P K,   S = I + K^T F
    Delta = R S^-1 F^T,            P <- P - F S^-1 F^T

so a batch costs the same whatever was edited before. It is MEMIT with accumulated keys (`memit_seq`), as a recursion.

Checked against: keys, values and updates of the published implementation, in both readings (golden data), and the
direct inverse.

Differences from the reference, which `compat` undoes: the implementation also subtracts W K from the residual, although
that is the residual of the residual stream. By the paper the target is W K + R, so that R is left.

Shapes: N edits, I inputs and O outputs of a projection. P is float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from pydantic import Field

from overedit.editing.methods.base import Method, Range, State
from overedit.editing.methods.locate_then_edit.algorithm import LayerProblem, LocateThenEdit, locate_then_edit
from overedit.editing.methods.locate_then_edit.solvers import Solution, by_inverse
from overedit.editing.methods.locate_then_edit.value_options import RANGES as VALUE_RANGES
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions


class RlsEdit(LocateThenEdit):
    """Settings of RLSEdit."""

    matrices_per_site: ClassVar[int] = 2
    """C0 and P."""
    state_matrices: ClassVar[int] = 1
    """P."""

    method: Literal["rlsedit"] = "rlsedit"
    """The method's name."""
    covariance_weight: float = Field(default=15_000, gt=0)
    """w: weight of preserved keys against edited ones (published settings)."""
    ridge: float = Field(default=0.0, ge=0)
    """l: its square is the weight of |Delta|^2 (0 in the published settings)."""
    key_weight: float = Field(default=1.0, gt=0)
    """m: its square multiplies the covariance's weight (1 in the published settings)."""
    compat: Literal["none", "rlsedit-6688b89"] = "none"
    """`rlsedit-6688b89`: subtract W K from the residual, as the published implementation does."""


PRESETS: Mapping[str, RlsEdit] = MappingProxyType(
    {
        # arXiv 2601.15686, published settings
        "meta-llama/Meta-Llama-3-8B-Instruct": RlsEdit(layers=(4, 5, 6, 7, 8), values=ValueOptions(learning_rate=0.1)),
    }
)
"""Model id -> published settings."""


def inverse(problem: LayerProblem, config: RlsEdit) -> torch.Tensor:
    """P before a batch, (I, I) float64."""
    if (name := _name(problem.site)) in problem.state:
        # a copy: products of a tensor that a file's bytes lie in differ in their last bits, by its place in memory
        return problem.state[name].to(problem.targets.keys_IN.device, copy=True)
    system_II = config.key_weight**2 * config.covariance_weight * problem.moment.matrix_II
    system_II.diagonal().add_(config.ridge**2)
    factor_II, failed = torch.linalg.cholesky_ex(system_II)
    return torch.linalg.pinv(system_II, hermitian=True) if failed else torch.cholesky_inverse(factor_II)


def solve(problem: LayerProblem, config: RlsEdit) -> Solution:
    """Delta = R S^-1 F^T."""
    targets = problem.targets
    if config.compat != "none":
        outputs_ON = problem.weight_OI.double() @ targets.keys_IN
        targets = targets._replace(residual_ON=targets.residual_ON - problem.share * outputs_ON)
    return by_inverse(targets, inverse(problem, config))


def remember(problems: Sequence[LayerProblem], config: RlsEdit) -> State:
    """P after a batch."""
    state = {}
    for problem in problems:
        before_II = inverse(problem, config)
        keyed_IN = before_II @ problem.targets.keys_IN
        after_II = before_II - keyed_IN @ by_inverse(problem.targets, before_II).weights_NI
        state[_name(problem.site)] = ((after_II + after_II.T) / 2).cpu().contiguous()
    return state


def _name(site: str) -> str:
    return f"{site}.inverse"


rlsedit = locate_then_edit(solve, remember=remember)
"""Edit all requests of a turn at once; the state holds P of each site."""

RANGES: Mapping[str, Range] = MappingProxyType({**VALUE_RANGES, "covariance_weight": Range(low=10, high=1e5, log=True)})
"""Setting -> the values among which a search chooses, for models of any size."""

METHOD = Method(
    config=RlsEdit,
    function=rlsedit,
    label="RLSEdit",
    paper="Recursive least squares for lifelong editing (RLSEdit), arXiv 2601.15686",
    presets=PRESETS,
    ranges=RANGES,
)
