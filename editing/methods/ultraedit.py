"""UltraEdit: one closed-form update per turn, from keys and gradients normalised over all turns so far.

"UltraEdit: Training-, Subject-, and Memory-Free Lifelong Editing in Language Models" (TMLR 2026, arXiv 2505.14679).
For each edited projection let H be the keys (its inputs) and G the gradients of the loss with respect to its outputs,
one row per answer token, traced on the model before the turn. Lifelong normalisation takes the running mean and
standard deviation of the features [key, gradient] over all rows so far, this turn's included, shared by all modules of
the same shape; with h~ and g~ the normalised parts of a row, its target and the update are

    v = -learning_rate |h~|^2 g~                  W <- W + Delta,   Delta = (H^T H + I)^-1 H^T V

with raw keys H. For fewer rows than columns the same Delta is H^T (H H^T + I)^-1 V, an R x R system.
The loss is the mean over all answer tokens of a micro-batch of 10, so the scale of G depends on the whole micro-batch.

Checked against: keys, gradients, statistics, updates and scores of the published implementation (golden data).

Differences from the reference, which `compat` undoes where it says so:
* The variance is exact. The reference adds n times the unbiased variance of each chunk to the sum of squares, which
  overstates it by n / (n - 1) and is NaN for a chunk of a single row (compat: overstates likewise, adds 0 for one row).
* Nothing is added to the standard deviation; a feature that never varied is 0. The reference adds the float32 machine
  epsilon, 1e-4 of a gradient's usual deviation in a small model (inferred from the golden data; compat: likewise).
* A last micro-batch of fewer requests is an ordinary one. The reference loses its gradients; not reproduced.
* Prompt and answer are tokenised as one text, with one space between. The reference tokenises them separately and puts
  a space in front of an answer that already begins with one (compat: likewise).
* Moments are float64 and counts int64, exact beyond a million edits; the solve is a float64 Cholesky decomposition.
* The update is added in float32 and rounded once; the reference rounds it to the model's dtype before adding.

Shapes: R rows, I inputs and O outputs of a projection, F = I + O features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import torch
from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import EditResult, Method, Progress, State, silent
from overedit.editing.methods.gradients.answer_gradients import ModuleGradients
from overedit.editing.methods.gradients.running_moments import Moments
from overedit.editing.methods.gradients.settings import RANGES, GradientEdit
from overedit.editing.methods.gradients.turn import shape_of, solve_turn, trace_turn
from overedit.editing.requests import EditRequest


class UltraEdit(GradientEdit):
    """Settings of UltraEdit; the defaults are the published ones, but the sites differ by model."""

    method: Literal["ultraedit"] = "ultraedit"
    """The method's name."""
    ridge: float = Field(default=1.0, gt=0)
    """Added to the diagonal of the keys' Gram matrix; 1 in the paper."""
    compat: Literal["none", "ultraedit-0beb222"] = "none"
    """Reproduce the published implementation at that commit where it departs from the paper, as listed at the top of
    this file."""


PRESETS: Mapping[str, UltraEdit] = MappingProxyType(
    {
        # published configuration
        "meta-llama/Meta-Llama-3-8B-Instruct": UltraEdit(
            sites=(*(f"{i}.gate_proj" for i in range(11, 16)), *(f"{i}.up_proj" for i in range(18, 25)))
        ),
        # two down_proj are published; that they are these layers is not confirmed
        "mistralai/Mistral-7B-v0.3": UltraEdit(sites=("29.down_proj", "30.down_proj")),
        # up to 18 modules are reported (arXiv 2509.22072); that they are these is not confirmed
        "Qwen/Qwen2.5-7B-Instruct": UltraEdit(
            sites=(*(f"{i}.gate_proj" for i in range(18, 27)), *(f"{i}.up_proj" for i in range(18, 27)))
        ),
        # chosen by a search on edits that no benchmark of the pocket world has: tasks/pocket_world/presets
        "pocket": UltraEdit(
            sites=("3.down_proj", "4.down_proj", "5.down_proj"), learning_rate=4.838e-3, ridge=0.5778, append_eos=True
        ),
    }
)
"""Model id -> published settings."""


def ultraedit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: UltraEdit,
    state: State,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> EditResult:
    """One turn: trace all requests on the model as it is, update the moments, solve each module once.

    A single row as the first of a trajectory has no deviation from its mean and gives no update.

    Args:
        model: The model to start from; bit-identical on return.
        tokenizer: Its tokenizer.
        requests: The turn's requests.
        config: Settings.
        state: Moments of the earlier turns: by shape `<in>x<out>` a `.count` (int64), `.mean` and `.m2` (float64).
        seed: Not used: nothing is random.
        progress: Called with (requests traced, total requests).

    Returns:
        Low-rank factors (float32) for each site's weight, dense changes where the rows outnumber the columns.

    Raises:
        ValueError: A request without tokens or too long for the model, or a site that is not a projection of the model.
    """
    turn = trace_turn(model, tokenizer, requests, config, progress=progress)
    moments = update_moments(turn.rows.modules, state, chunks=None if config.compat == "none" else turn.chunks)

    def targets(rows: ModuleGradients) -> torch.Tensor:
        return target_rows(rows, moments[shape_of(rows)], config.learning_rate, epsilon=config.epsilon)

    update, log = solve_turn(model, turn, targets, config.ridge)
    stored = {name: tensor for shape, seen in moments.items() for name, tensor in seen.stored(shape).items()}
    return EditResult(update, stored, log)


def update_moments(
    modules: Mapping[str, ModuleGradients], state: State, *, chunks: Sequence[int] | None = None
) -> dict[str, Moments]:
    """The moments after a turn, by shape.

    Args:
        modules: The turn's keys and gradients.
        state: Moments before.
        chunks: Rows of each micro-batch, to inflate the statistics chunk by chunk as the reference; None: exact.
    """
    moments: dict[str, Moments] = {}
    for rows in modules.values():
        shape, features_RF = shape_of(rows), torch.cat(rows, 1)
        if shape not in moments:
            device = features_RF.device
            moments[shape] = Moments.load(state, shape, device) or Moments.none(features_RF.shape[1], device)
        for chunk_RF in features_RF.split(list(chunks) if chunks else len(features_RF)):
            moments[shape] = moments[shape].merge(chunk_RF, inflated=chunks is not None)
    return moments


def target_rows(rows: ModuleGradients, moments: Moments, learning_rate: float, *, epsilon: float = 0.0) -> torch.Tensor:
    """The targets v = -learning_rate |h~|^2 g~ for each row, (R, O) float64."""
    width = rows.keys.shape[1]
    keys_RI = moments.normalise(rows.keys, slice(width), epsilon=epsilon)
    gradients_RO = moments.normalise(rows.gradients, slice(width, None), epsilon=epsilon)
    return gradients_RO.mul_(-learning_rate * keys_RI.square_().sum(1, keepdim=True))


METHOD = Method(
    config=UltraEdit,
    function=ultraedit,
    label="UltraEdit",
    paper="UltraEdit: Training-, Subject-, and Memory-Free Lifelong Editing, arXiv 2505.14679",
    presets=PRESETS,
    ranges=RANGES,
)
