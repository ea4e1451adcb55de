"""One turn of a method that solves once from keys and gradients: trace the requests, then solve each projection.

Shapes: R rows (answer tokens of the turn), I inputs and O outputs of a projection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import Progress
from overedit.editing.methods.gradients.answer_gradients import AnswerGradients, ModuleGradients, trace_answers
from overedit.editing.methods.gradients.ridge import ridge_update
from overedit.editing.methods.gradients.settings import GradientEdit
from overedit.editing.model.anatomy import Anatomy, stores_in_out
from overedit.editing.model.tokenization import TokenPair, encode_requests
from overedit.editing.model.weights import Delta, LowRank, WeightUpdate
from overedit.editing.requests import EditRequest


class Turn(NamedTuple):
    """Keys and gradients of a turn's requests."""

    rows: AnswerGradients
    chunks: list[int]
    """Rows of each micro-batch, in their order."""
    lengths: list[int]
    """Rows of each request, in their order."""
    parameters: dict[str, str]
    """Module name -> its weight's name."""


def trace_turn(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: GradientEdit,
    *,
    progress: Progress,
) -> Turn:
    """Keys H and gradients G of the turn's answer tokens, each micro-batch's loss being the mean over its tokens.

    Args:
        model: Bit-identical on return.
        tokenizer: Its tokenizer.
        requests: The turn's requests.
        config: Settings.
        progress: Called with (requests traced, total requests).

    Raises:
        ValueError: A request without tokens or too long for the model, or a site that is not a projection of the model.
    """
    anatomy = Anatomy.of(model)
    parameters = {anatomy.site_module(site): _weight_name(anatomy, site, config) for site in config.sites}
    pairs = encode_requests(model, tokenizer, requests, append_eos=config.append_eos, join=config.join)
    batches = loss_batches(pairs, config)
    chunks = [sum(len(pairs[i].target) for i in batch) for batch in batches]
    ordered = [pairs[i] for batch in batches for i in batch]
    rows = trace_answers(
        model,
        ordered,
        tuple(parameters),
        [1 / count for batch, count in zip(batches, chunks, strict=True) for _ in batch],
        max_tokens_per_pass=config.max_tokens_per_pass,
        pack_tokens=config.lane_tokens,
        progress=progress,
    )
    return Turn(rows, chunks, [len(pair.target) for pair in ordered], parameters)


def loss_batches(pairs: Sequence[TokenPair], config: GradientEdit) -> list[list[int]]:
    """Indices of the requests in each micro-batch, in the order of tracing."""
    order = list(range(len(pairs)))
    if config.order == "length":
        order.sort(key=lambda i: -len(pairs[i].prompt) - len(pairs[i].target))
    return [order[i : i + config.loss_batch_size] for i in range(0, len(order), config.loss_batch_size)]


def shape_of(rows: ModuleGradients) -> str:
    """The shape `<in>x<out>` of a module, which modules that share their moments have in common."""
    return f"{rows.keys.shape[1]}x{rows.gradients.shape[1]}"


def solve_turn(
    model: PreTrainedModel, turn: Turn, targets: Callable[[ModuleGradients], torch.Tensor], ridge: float
) -> tuple[WeightUpdate, dict[str, float | int | str]]:
    """Solve every module for its targets.

    Args:
        model: Only read.
        turn: The keys and gradients.
        targets: The targets V of a module's rows, (R, O) float64.
        ridge: Above 0.

    Returns:
        Low-rank factors (float32) for each weight, dense changes where the rows outnumber the inputs; and the log.
    """
    update: dict[str, LowRank | Delta] = {}
    moved_R = torch.zeros(sum(turn.chunks), dtype=torch.bool)
    for module, rows in turn.rows.modules.items():
        targets_RO = targets(rows)
        moved_R |= (targets_RO != 0).any(1).cpu()  # a NaN moves too
        in_out = stores_in_out(model.get_submodule(module))
        update[turn.parameters[module]] = ridge_update(rows.keys, targets_RO, ridge, in_out=in_out)
    log: dict[str, float | int | str] = {
        "rows": sum(turn.chunks),
        "loss": float(turn.rows.losses.mean()),
        "tokens_computed": turn.rows.num_tokens,
        "unmoved": sum(not bool(own_R.any()) for own_R in moved_R.split(turn.lengths)),
    }
    return dict(update), log


def _weight_name(anatomy: Anatomy, site: str, config: GradientEdit) -> str:
    names = anatomy.site_parameters(site)
    config.check_projection(site)
    return names[0]
