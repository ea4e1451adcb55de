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
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import (
    EditResult,
    Method,
    MethodConfig,
    Progress,
    Range,
    State,
    TurnSize,
    Work,
    silent,
)
from overedit.editing.methods.gradients.answer_gradients import AnswerGradients, ModuleGradients, trace_answers
from overedit.editing.methods.gradients.ridge import ridge_update
from overedit.editing.methods.gradients.running_moments import Moments
from overedit.editing.model.anatomy import Anatomy, stores_in_out
from overedit.editing.model.shape import ModelShape
from overedit.editing.model.tokenization import TokenPair, encode_requests
from overedit.editing.model.weights import Delta, LowRank
from overedit.editing.requests import EditRequest


class UltraEdit(MethodConfig):
    """Settings of UltraEdit; the defaults are the published ones, but the sites differ by model."""

    method: Literal["ultraedit"] = "ultraedit"
    """The method's name."""
    sites: tuple[str, ...] = Field(min_length=1)
    """The projections to edit, as `<layer>.<part>`, e.g. `11.gate_proj`."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """Scale of the targets (published settings)."""
    loss_batch_size: int = Field(default=10, ge=1)
    """Requests over whose answer tokens the loss is averaged; sets the gradients' scale (published settings)."""
    ridge: float = Field(default=1.0, gt=0)
    """Added to the diagonal of the keys' Gram matrix; 1 in the paper."""
    order: Literal["length", "given"] = "length"
    """How a turn's requests are cut into micro-batches: longest first (published implementation), or as given."""
    append_eos: bool = False
    """End each answer with the end-of-sequence token. The paper does not; needed where free generation is scored, and
    done for all methods alike by arXiv 2509.22072, appendix A.1.1."""
    compat: Literal["none", "ultraedit-0beb222"] = "none"
    """Reproduce the published implementation at that commit where it departs from the paper, as listed at the top of
    this file."""
    max_tokens_per_pass: int = Field(default=8192, ge=1)
    """Tokens per forward pass: bounds memory, without effect on the result."""
    lane_tokens: int = Field(default=96, ge=1)
    """Sequences are packed into rows of about this many tokens, without effect on the result: longer rows leave less
    padding and make attention slower."""

    def at_site(self, site: str) -> Self:
        """The same settings with one projection to edit."""
        _check_projection(site)
        return self.model_copy(update={"sites": (site,)})

    def work(self, shape: ModelShape, turn: TurnSize) -> Work:
        """One pass forward and back to the lowest site, and one solve for each site.

        For R rows, I inputs and O outputs: R min(R, I) (I + O) products and min(R, I)^3 / 3 of the decomposition, in
        float64. Bytes: the rows of all sites and their factors in float32; of one site twice in float64, with the
        system, and its change and sum in float32; the moments, two rows of float64 by shape of a site.
        """
        sites = [shape.projections[site] for site in self.sites]
        rows, layers = turn.targets, shape.num_layers - shape.first_layer(self.sites)
        passes = shape.forward(turn.tokens) + shape.forward(turn.tokens, layers=layers) + 2 * shape.head(turn.targets)
        solves = sum(
            4 * rows * min(rows, s.inputs) * (s.inputs + s.outputs) + min(rows, s.inputs) ** 3 / 1.5 for s in sites
        )
        together = min(turn.tokens, self.max_tokens_per_pass)
        read = together / turn.tokens * turn.targets
        widest = max(sites, key=lambda s: s.inputs + s.outputs)
        solving = 16 * rows * (widest.inputs + widest.outputs) + 16 * min(rows, widest.inputs) ** 2
        state = 16 * sum(i + o for i, o in {(s.inputs, s.outputs) for s in sites})
        tracing = shape.kept_bytes(together, layers=layers) + shape.logits_bytes(read)
        kept = 8 * rows * sum(s.inputs + s.outputs for s in sites)
        return Work(
            operations=passes + solves,
            num_bytes=kept + state + max(tracing, solving, 8 * shape.largest(self.sites)),
            state_bytes=state,
        )


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
    anatomy = Anatomy.of(model)
    weights = {anatomy.site_module(site): _weight_name(anatomy, site) for site in config.sites}
    turn = _trace(model, tokenizer, requests, config, tuple(weights), progress)
    faithful = config.compat == "none"
    epsilon = 0.0 if faithful else torch.finfo(torch.float32).eps
    moments = update_moments(turn.rows.modules, state, chunks=None if faithful else turn.chunks)
    update: dict[str, LowRank | Delta] = {}
    moved_R = torch.zeros(sum(turn.chunks), dtype=torch.bool)
    for module, rows in turn.rows.modules.items():
        targets_RO = target_rows(rows, moments[_shape(rows)], config.learning_rate, epsilon=epsilon)
        moved_R |= (targets_RO != 0).any(1).cpu()  # a NaN moves too
        in_out = stores_in_out(model.get_submodule(module))
        update[weights[module]] = ridge_update(rows.keys, targets_RO, config.ridge, in_out=in_out)
    log: dict[str, float | int | str] = {
        "rows": sum(turn.chunks),
        "loss": float(turn.rows.losses.mean()),
        "tokens_computed": turn.rows.num_tokens,
        "unmoved": sum(not bool(own_R.any()) for own_R in moved_R.split(turn.lengths)),
    }
    stored = {name: tensor for shape, seen in moments.items() for name, tensor in seen.stored(shape).items()}
    return EditResult(dict(update), stored, log)


class _Turn(NamedTuple):
    """Keys and gradients of a turn's requests."""

    rows: AnswerGradients
    chunks: list[int]
    """Rows of each micro-batch, in their order."""
    lengths: list[int]
    """Rows of each request, in their order."""


def _trace(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: UltraEdit,
    modules: tuple[str, ...],
    progress: Progress,
) -> _Turn:
    """Keys H and gradients G of the turn's answer tokens, each micro-batch's loss being the mean over its tokens."""
    join: Literal["text", "ids"] = "text" if config.compat == "none" else "ids"
    pairs = encode_requests(model, tokenizer, requests, append_eos=config.append_eos, join=join)
    batches = loss_batches(pairs, config)
    chunks = [sum(len(pairs[i].target) for i in batch) for batch in batches]
    ordered = [pairs[i] for batch in batches for i in batch]
    rows = trace_answers(
        model,
        ordered,
        modules,
        [1 / count for batch, count in zip(batches, chunks, strict=True) for _ in batch],
        max_tokens_per_pass=config.max_tokens_per_pass,
        pack_tokens=config.lane_tokens,
        progress=progress,
    )
    return _Turn(rows, chunks, [len(pair.target) for pair in ordered])


def loss_batches(pairs: Sequence[TokenPair], config: UltraEdit) -> list[list[int]]:
    """Indices of the requests in each micro-batch, in the order of tracing."""
    order = list(range(len(pairs)))
    if config.order == "length":
        order.sort(key=lambda i: -len(pairs[i].prompt) - len(pairs[i].target))
    return [order[i : i + config.loss_batch_size] for i in range(0, len(order), config.loss_batch_size)]


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
        shape, features_RF = _shape(rows), torch.cat(rows, 1)
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


def _weight_name(anatomy: Anatomy, site: str) -> str:
    names = anatomy.site_parameters(site)
    _check_projection(site)
    return names[0]


def _check_projection(site: str) -> None:
    if not site.endswith("_proj"):
        raise ValueError(
            f"sites: ultraedit edits single projections, and {site!r} is not one; choose a part like down_proj"
        )


def _shape(rows: ModuleGradients) -> str:
    return f"{rows.keys.shape[1]}x{rows.gradients.shape[1]}"


RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "learning_rate": Range(low=1e-7, high=1e-1, log=True),
        "ridge": Range(low=1e-1, high=1e2, log=True),
    }
)
"""Setting -> the values among which a search chooses, for models of any size."""

METHOD = Method(
    config=UltraEdit,
    function=ultraedit,
    label="UltraEdit",
    paper="UltraEdit: Training-, Subject-, and Memory-Free Lifelong Editing, arXiv 2505.14679",
    presets=PRESETS,
    ranges=RANGES,
)
