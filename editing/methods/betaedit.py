"""BetaEdit: AlphaEdit whose null space is taken anew as edits accumulate.

BetaEdit (IJCAI 2026, arXiv 2605.09285). With the keys K_p of all edits before, t of them, and P the projector on the
null space,

    Delta = R K^T P ((K K^T + K_p K_p^T + l1 C0) P + l2 I)^-1

and every `refresh_every` edits P is the null space of (K_p K_p^T / t + l1 C0) / (l1 + 1) instead of C0's.

Checked against: projectors, values, updates and sums of the published implementation over four batches, one refresh
among them (golden data).

Differences from the reference: the system is solved in coordinates of the null space, in float64. The reference stops a
run at a batch with |Delta| / sqrt(N) > 20; here `update_norm` is in the log, and a search finds the collapse.

Shapes: N edits, I inputs and O outputs of a projection, M dimensions of its null space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from pydantic import Field

from overedit.editing.methods.base import Method, Range, State
from overedit.editing.methods.locate_then_edit.algorithm import LayerProblem, LocateThenEdit, locate_then_edit
from overedit.editing.methods.locate_then_edit.covariance import Eigen
from overedit.editing.methods.locate_then_edit.earlier_keys import earlier_keys, with_keys
from overedit.editing.methods.locate_then_edit.solvers import Solution, check_threshold, null_space
from overedit.editing.methods.locate_then_edit.value_options import RANGES as VALUE_RANGES
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions

COUNT = "num_edits"
"""The state's counters: edits so far, and those at the last refresh."""


class BetaEdit(LocateThenEdit):
    """Settings of BetaEdit; the defaults are the published ones."""

    matrices_per_site: ClassVar[int] = 4
    """C0, the eigenvectors, those of the null space, and the system in their coordinates."""
    state_matrices: ClassVar[int] = 2
    """K_p K_p^T and the basis of the null space."""

    method: Literal["betaedit"] = "betaedit"
    """The method's name."""
    covariance_weight: float = Field(default=3000, gt=0)
    """l1: weight of preserved keys against edited ones."""
    ridge: float = Field(default=10.0, gt=0)
    """l2: weight of |Delta|^2."""
    threshold: float = Field(default=2e-2, gt=0)
    """Eigenvalues below it span the null space."""
    refresh_every: int = Field(default=1000, ge=1)
    """tau: the edits after which the null space is taken anew."""


PRESETS: Mapping[str, BetaEdit] = MappingProxyType(
    {
        # arXiv 2605.09285, published settings
        "meta-llama/Meta-Llama-3-8B-Instruct": BetaEdit(layers=(4, 5, 6, 7, 8), values=ValueOptions(learning_rate=0.1)),
    }
)
"""Model id -> published settings."""


def null_basis(problem: LayerProblem, config: BetaEdit) -> torch.Tensor:
    """The basis of the null space for a batch, (I, M) float64: the state's, C0's, or a new one where it is time."""
    seen, refreshed = _counts(problem.state)
    earlier_II = earlier_keys(problem)
    if earlier_II is not None and seen - refreshed >= config.refresh_every:
        mixed_II = (earlier_II / seen + config.covariance_weight * problem.moment.matrix_II) / (
            config.covariance_weight + 1
        )
        found = Eigen(*torch.linalg.eigh(mixed_II))
        return found.eigenvectors[:, found.eigenvalues < config.threshold]
    if (name := _name(problem.site)) in problem.state:
        return problem.state[name].to(problem.targets.keys_IN.device, copy=True)
    return problem.moment.null_space(config.threshold)


def solve(problem: LayerProblem, config: BetaEdit) -> Solution:
    """The equation above, in coordinates of the null space."""
    kept_II = config.covariance_weight * problem.moment.matrix_II
    if (earlier_II := earlier_keys(problem)) is not None:
        kept_II += earlier_II
    return null_space(problem.targets, null_basis(problem, config), kept_II, ridge=config.ridge)


def remember(problems: Sequence[LayerProblem], config: BetaEdit) -> State:
    """The keys with those of the batch, the bases that it was solved with, and the counters."""
    seen, refreshed = _counts(problems[0].state)
    refreshed = seen if seen - refreshed >= config.refresh_every else refreshed
    num_edits = problems[0].targets.keys_IN.shape[1]
    bases = {_name(problem.site): null_basis(problem, config).cpu().contiguous() for problem in problems}
    return with_keys(problems, config) | bases | {COUNT: torch.tensor([seen + num_edits, refreshed])}


def _counts(state: State) -> tuple[int, int]:
    """The edits so far, and those at the last refresh."""
    seen, refreshed = state[COUNT].tolist() if COUNT in state else (0, 0)
    return int(seen), int(refreshed)


def _name(site: str) -> str:
    return f"{site}.null_basis"


betaedit = locate_then_edit(solve, check=check_threshold, remember=remember)
"""Edit all requests of a turn at once."""

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        **VALUE_RANGES,
        "covariance_weight": Range(low=1, high=1e4, log=True),
        "threshold": Range(low=1e-3, high=1e2, log=True),
        "ridge": Range(low=1e-1, high=1e4, log=True),
    }
)
"""Setting -> the values among which a search chooses, for models of any size."""

METHOD = Method(
    config=BetaEdit,
    function=betaedit,
    label="BetaEdit",
    paper="Null-space editing with a refreshed projector (BetaEdit), arXiv 2605.09285",
    presets=PRESETS,
    ranges=RANGES,
)
