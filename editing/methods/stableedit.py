"""StableEdit: UltraEdit with whitened gradients, after a warm-up.

"More Edits, More Stable: Understanding the Lifelong Normalization in Sequential Model Editing" (ICML 2026, arXiv
2605.11836). Keys H, gradients G and the running moments are UltraEdit's (`ultraedit.py`). With h~ the key in standard
deviations, m and S the gradients' running mean and sum of outer products of deviations over all n rows so far, this
turn's included and shared by all modules of the same shape, the target of a row and the update are

    Sigma = S / (n - O - 1)        g^ = Sigma^-1/2 (g - m)
    v = -learning_rate |h~|^2 g^   W <- W + Delta,   Delta = (H^T H + ridge I)^-1 H^T V

with eigenvalues of Sigma of at least 1e-6. Up to n = O + 1, and in the warm-up, g^ is UltraEdit's g~, the deviations in
standard deviations. Just beyond n = O + 1 the divisor is small, so the targets change in size there.

Checked against: keys, gradients, moments, whitening and updates of the published implementation (golden data), a turn
of warm-up and the step beyond n = O + 1 among them.

Differences from the reference:
* The warm-up. The authors write other facts first, 2,000 of the training split, which stay in the weights and are not
  counted. Here nothing is written that is not counted: the warm-up is the trajectory's own first edits, in whole
  turns. A count of n edits in the paper is therefore one of n + `warm_up` here.
* Those of UltraEdit, which `compat` undoes likewise, but for the variance, which is exact in the reference too.

Shapes: R rows, I inputs and O outputs of a projection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import torch
from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import EditResult, Method, Progress, Range, State, TurnSize, Work, silent
from overedit.editing.methods.gradients.answer_gradients import ModuleGradients
from overedit.editing.methods.gradients.settings import RANGES as SHARED_RANGES
from overedit.editing.methods.gradients.settings import GradientEdit
from overedit.editing.methods.gradients.turn import shape_of, solve_turn, trace_turn
from overedit.editing.methods.gradients.whitening import GradientMoments, Whitening, gradient_moments
from overedit.editing.model.shape import ModelShape
from overedit.editing.requests import EditRequest


class StableEdit(GradientEdit):
    """Settings of StableEdit; the defaults are the published ones, but the sites differ by model."""

    method: Literal["stableedit"] = "stableedit"
    """The method's name."""
    ridge: float = Field(default=10.0, gt=0)
    """Added to the diagonal of the keys' Gram matrix (published settings)."""
    warm_up: int = Field(default=2000, ge=0)
    """The first edits of a trajectory, to the end of their turn, whose gradients are not whitened. They count like all
    others; the 2,000 facts of the published settings come in addition and do not."""
    compat: Literal["none", "stableedit-6ea8eae"] = "none"
    """Reproduce the published implementation at that commit in epsilon and tokens, as UltraEdit's setting does."""

    def work(self, shape: ModelShape, turn: TurnSize) -> Work:
        """What UltraEdit takes, and S and Sigma^-1/2, in float64.

        By site R O^2 products for S and as many for g^, by shape O^3 and 9 O^3 operations for the eigenvectors. Bytes:
        S before and after, and Sigma^-1/2, by shape; Sigma, its eigenvectors and their copy for one.
        """
        plain, sites = super().work(shape, turn), self.projections(shape)
        shapes = {(s.inputs, s.outputs) for s in sites}
        squares = 8 * sum(outputs**2 for _, outputs in shapes)
        products = 8 * turn.targets * sum(s.outputs**2 for s in sites)
        return plain._replace(
            operations=plain.operations + products + 22 * sum(outputs**3 for _, outputs in shapes),
            num_bytes=plain.num_bytes + 3 * squares + 24 * max(outputs for _, outputs in shapes) ** 2,
            state_bytes=plain.state_bytes + squares + 8,
        )


def _published(*layers: int, learning_rate: float = 1e-6) -> StableEdit:
    return StableEdit(sites=tuple(f"{layer}.down_proj" for layer in layers), learning_rate=learning_rate)


PRESETS: Mapping[str, StableEdit] = MappingProxyType(
    {
        "meta-llama/Meta-Llama-3-8B-Instruct": _published(11, 12, 22, 23, 28, 29, 30),  # on FEVER 22 to 26
        "mistralai/Mistral-7B-v0.3": _published(28, 29, 30),
        "EleutherAI/gpt-j-6b": _published(*range(18, 27), learning_rate=2e-6),
        # some runs have layer 25 too; that the projection is this one is not confirmed
        "Qwen/Qwen2.5-7B-Instruct": _published(*range(8, 15), *range(18, 25)),
    }
)
"""Model id -> published settings."""


def stableedit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: StableEdit,
    state: State,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> EditResult:
    """One turn: trace all requests on the model as it is, update the moments, solve each module once.

    Arguments, updates and errors are those of `ultraedit`. The state has `num_edits` (int64) too, and by shape
    `<in>x<out>` a `.scatter` (float64), S. The log has `warm_up` (0 or 1), and by shape `whitened/` (0 or 1) and
    `clamped/`, the eigenvalues that were raised to the floor.
    """
    turn = trace_turn(model, tokenizer, requests, config, progress=progress)
    moments = gradient_moments(turn.rows.modules, state)
    seen = int(state.get("num_edits", 0))
    warm = seen < config.warm_up
    whitening = {shape: None if warm else each.whitening() for shape, each in moments.items()}

    def targets(rows: ModuleGradients) -> torch.Tensor:
        return target_rows(rows, moments[shape_of(rows)], whitening[shape_of(rows)], config)

    update, log = solve_turn(model, turn, targets, config.ridge)
    log["warm_up"] = int(warm)
    for shape, found in whitening.items():
        log |= {f"whitened/{shape}": int(found is not None), f"clamped/{shape}": found.num_clamped if found else 0}
    stored = {name: tensor for shape, each in moments.items() for name, tensor in each.stored(shape).items()}
    return EditResult(update, stored | {"num_edits": torch.tensor(seen + len(requests))}, log)


def target_rows(
    rows: ModuleGradients, moments: GradientMoments, whitening: Whitening | None, config: StableEdit
) -> torch.Tensor:
    """The targets v = -learning_rate |h~|^2 g^ for each row, (R, O) float64; without whitening g^ = g~."""
    width, features = rows.keys.shape[1], moments.features
    keys_RI = features.normalise(rows.keys, slice(width), epsilon=config.epsilon)
    if whitening is None:
        gradients_RO = features.normalise(rows.gradients, slice(width, None), epsilon=config.epsilon)
    else:
        gradients_RO = (rows.gradients - features.mean_F[width:]) @ whitening.matrix_OO
    return gradients_RO.mul_(-config.learning_rate * keys_RI.square_().sum(1, keepdim=True))


RANGES: Mapping[str, Range] = MappingProxyType({**SHARED_RANGES, "warm_up": Range(choices=(0, 100, 1000))})
"""Setting -> the values among which a search chooses, for models of any size."""

METHOD = Method(
    config=StableEdit,
    function=stableedit,
    label="StableEdit",
    paper="Lifelong normalization in sequential editing (StableEdit), arXiv 2605.11836",
    presets=PRESETS,
    ranges=RANGES,
)
