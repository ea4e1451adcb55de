"""R-ROME: ROME with one and the same key everywhere.

"Rebuilding ROME: Resolving Model Collapse during Sequential Model Editing" (Gupta, Baskaran, Anumanchipalli, EMNLP
2024, arXiv 2403.07175); the same correction is C-ROME of "The Fall of ROME" (Yang et al. 2024, arXiv 2406.11263). With
k* the mean key over contexts,

    W' = W + (v* - W k*) (C0^-1 k*)^T / ((C0^-1 k*)^T k*)

ROME's reference takes the bare prompt's key for W k* and in the denominator; that is what collapses a model whose edit
has its subject first.

Checked against: W' k* = v* to 1e-8, and ROME where the bare prompt is the only context.

Differences from the reference: as ROME.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from editing.covariance import SecondMoment
from editing.locate_then_edit import LayerProblem, edit_in_batches
from editing.method import EditResult, Progress, State, silent
from editing.methods.rome import PRESETS as ROME_PRESETS
from editing.methods.rome import RankOneSettings
from editing.objectives import Solution, equality
from editing.requests import EditRequest


class RRome(RankOneSettings):
    """Settings of R-ROME."""

    method: Literal["r_rome"] = "r_rome"
    """The method's name."""


PRESETS: Mapping[str, RRome] = MappingProxyType(
    {
        model: RRome.model_validate(preset.model_dump(exclude_unset=True, exclude={"method"}))
        for model, preset in ROME_PRESETS.items()
    }
)
"""Model id -> ROME's settings."""


def r_rome(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: RRome,
    state: State,
    *,
    covariance: Mapping[str, SecondMoment],
    seed: int = 0,
    progress: Progress = silent,
) -> EditResult:
    """Edit a turn's requests one after the other, each on the model that the one before has left.

    Args:
        model: The model to start from; bit-identical on return.
        tokenizer: Its tokenizer.
        requests: The turn's requests, each with its subject.
        config: Settings.
        state: The context templates, from the second turn on.
        covariance: C0 of the pristine model by site.
        seed: Of the sampling of contexts, in the first turn.
        progress: Told (requests done, requests in all).

    Returns:
        Low-rank factors for the layer's weight, a rank an edit.

    Raises:
        ValueError: A request without its subject, or a layer or part that the model does not have.
    """

    def solve(problem: LayerProblem) -> Solution:
        return equality(problem.memory, problem.moment.cholesky_II, weight=1.0)

    return edit_in_batches(
        model,
        tokenizer,
        requests,
        config,
        state,
        batch_size=1,
        covariance=covariance,
        solve=solve,
        seed=seed,
        progress=progress,
        keys_in_residual=True,
    )
