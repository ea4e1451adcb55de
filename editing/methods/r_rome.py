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

from editing.covariance import CovarianceOptions, SecondMoment
from editing.locate_then_edit import Distribution, LayerProblem, LocateThenEdit, edit_in_batches
from editing.method import EditResult, Progress, State, silent
from editing.objectives import Solution, equality
from editing.requests import EditRequest
from editing.values import ValueOptions


class RRome(LocateThenEdit):
    """Settings of R-ROME; the defaults are ROME's."""

    method: Literal["r_rome"] = "r_rome"
    """The method's name."""
    value_at: Literal["mlp", "layer"] = "mlp"
    """The value is the MLP's output."""
    distribution: Distribution = "single"
    """One layer."""
    values: ValueOptions = ValueOptions(num_steps=20, clamp_norm_factor=4)
    """How the value is optimized (ROME's published settings)."""


PRESETS: Mapping[str, RRome] = MappingProxyType(
    {
        # ROME's settings
        "openai-community/gpt2-xl": RRome(layers=(17,)),
        "EleutherAI/gpt-j-6b": RRome(layers=(5,)),
        # ROME's settings
        "pocket": RRome(
            layers=(0,),
            values=ValueOptions(learning_rate=2.0, weight_decay=1e-3, clamp_norm_factor=4.0),
            covariance=CovarianceOptions(corpus="pocket", num_samples=2000),
        ),
    }
)
"""Model id -> published settings."""


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
