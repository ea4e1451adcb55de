"""Keys and output gradients at the answer tokens: the inputs of projections, and the loss's gradients at their outputs.

An answer ends its sequence and attention is causal, so no gradient of the loss is needed at prompt tokens. The prompts
therefore run without a graph and only fill the model's key-value cache (the last layer's MLP, the final norm and the
head are left out). Then the answers alone run forward and backward, and the backward pass ends at the lowest traced
module. No parameter gets a gradient.

Shapes: L packs (see `packing`), A answer tokens of a pack, R rows (answer tokens of all sequences), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from overedit.editing.methods.base import Progress, silent
from overedit.editing.methods.gradients.cross_entropy import cross_entropy_gradient
from overedit.editing.model.anatomy import Anatomy, stores_in_out
from overedit.editing.model.hooks import frozen, standing_in, traced
from overedit.editing.model.memory import OomHalver
from overedit.editing.model.partial_forward.batching import plan_batches
from overedit.editing.model.partial_forward.packing import check_attention, lay_out, plan_packs, run_prompts
from overedit.editing.model.tokenization import TokenPair


class ModuleGradients(NamedTuple):
    """Inputs and output gradients of one module, one row per answer token; float32, on the module's device."""

    keys: torch.Tensor
    """(R, in) inputs."""
    gradients: torch.Tensor
    """(R, out) gradients of the loss with respect to the outputs."""


class AnswerGradients(NamedTuple):
    """The result of `trace_answers`; rows in the order of the pairs, then of their tokens."""

    modules: Mapping[str, ModuleGradients]
    """Module name -> its keys and gradients."""
    losses: torch.Tensor
    """(R) negative log-likelihood of each answer token in nats, float32."""
    num_tokens: int
    """Tokens computed, padding included."""


def trace_answers(
    model: PreTrainedModel,
    pairs: Sequence[TokenPair],
    modules: Sequence[str],
    weights: Sequence[float],
    *,
    max_tokens_per_pass: int,
    pack_tokens: int,
    progress: Progress = silent,
) -> AnswerGradients:
    """Trace projections at the answer tokens, for the loss: sum over pairs of weight * sum over tokens of -log p.

    Args:
        model: Bit-identical on return, gradient flags, training mode and hooks included.
        pairs: Prompts and targets, at least one.
        modules: Names of projections.
        weights: Weight of each pair's tokens in the loss.
        max_tokens_per_pass: Tokens per pass at most; a longer sequence runs alone. It is halved when memory runs out.
        pack_tokens: Approximate tokens per pack; larger packs leave less padding and make attention slower.
        progress: Called with (sequences done, total sequences).

    Raises:
        ValueError: The model's attention accepts no four-dimensional mask (flash attention).
    """
    check_attention(model)
    anatomy = Anatomy.of(model)
    first_rows = list(accumulate((len(pair.target) for pair in pairs), initial=0))
    found = {name: _empty_rows(model.get_submodule(name), first_rows[-1]) for name in modules}
    losses_R = torch.empty(first_rows[-1], device=model.device)
    done = computed = 0

    def trace(chosen: Sequence[int]) -> tuple[list[int], _TracedPass]:
        packs = plan_packs([pairs[i] for i in chosen], pack_tokens)
        order = [chosen[i] for pack in packs for i in pack]
        weights_R = torch.tensor([weights[i] for i in order for _ in pairs[i].target])
        return order, _run(model, anatomy, [[pairs[chosen[i]] for i in pack] for pack in packs], modules, weights_R)

    def size(chosen: Sequence[int]) -> int:
        return sum(len(pairs[i].prompt) + len(pairs[i].target) for i in chosen)

    with frozen(model):
        lengths = [len(pair.prompt) + len(pair.target) - 1 for pair in pairs]
        passes = plan_batches(lengths, _limit(model, max_tokens_per_pass), padded=False)
        for chosen, (order, traced_pass) in OomHalver().run(passes, trace, size=size):
            rows = torch.tensor([row for i in order for row in range(first_rows[i], first_rows[i + 1])])
            _keep(traced_pass, rows, found, losses_R)
            done, computed = done + len(chosen), computed + traced_pass.num_tokens
            progress(done, len(pairs))
    return AnswerGradients(found, losses_R, computed)


class _TracedPass(NamedTuple):
    inputs: Mapping[str, torch.Tensor]
    gradients: Mapping[str, torch.Tensor]
    real_R: torch.Tensor
    """Flat indices of the answer tokens into L * A."""
    losses_R: torch.Tensor
    num_tokens: int


def _limit(model: PreTrainedModel, max_tokens: int) -> int:
    """Tokens per pass: a sequence that may exceed a sliding window must run alone, with the model's own mask."""
    window = getattr(model.config, "sliding_window", None)
    return max_tokens if window is None else min(max_tokens, window)


def _empty_rows(module: nn.Module, num_rows: int) -> ModuleGradients:
    weight = module.get_parameter("weight")
    width_in, width_out = weight.shape if stores_in_out(module) else weight.shape[::-1]
    return ModuleGradients(
        torch.empty(num_rows, width_in, device=weight.device), torch.empty(num_rows, width_out, device=weight.device)
    )


def _keep(seen: _TracedPass, rows: torch.Tensor, found: Mapping[str, ModuleGradients], losses_R: torch.Tensor) -> None:
    """Store the results of a pass."""
    losses_R[rows.to(losses_R.device)] = seen.losses_R
    for name, module in found.items():
        at, where = seen.real_R.to(module.keys.device), rows.to(module.keys.device)
        for kept, values in zip(module, (seen.inputs[name], seen.gradients[name]), strict=True):
            kept[where] = values.reshape(-1, kept.shape[1]).index_select(0, at).to(kept.dtype)


def _run(
    model: PreTrainedModel,
    anatomy: Anatomy,
    packs: Sequence[Sequence[TokenPair]],
    modules: Sequence[str],
    weights_R: torch.Tensor,
) -> _TracedPass:
    """Run one pass; rows in the order of the packs."""
    owned = [[(n, pair) for n, pair in enumerate(pack)] for pack in packs]
    answers = lay_out(
        [[(n, (pair.prompt[-1], *pair.target[:-1]), len(pair.prompt) - 1) for n, pair in pack] for pack in owned],
        model.device,
    )
    prompts = [[(n, pair.prompt[:-1], 0) for n, pair in pack] for pack in owned]
    after = run_prompts(model, anatomy, prompts, answers)
    labels_R = torch.tensor([token for pack in packs for pair in pack for token in pair.target], device=model.device)
    real_R = (answers.owners_LT.flatten() >= 0).nonzero()[:, 0]
    head = model.get_submodule(anatomy.head)
    run_head = head.forward

    def read(hidden_LAD: torch.Tensor) -> torch.Tensor:
        logits_1RV: torch.Tensor = run_head(hidden_LAD.flatten(0, 1).index_select(0, real_R)[None])
        return logits_1RV

    with torch.enable_grad(), traced(model, modules, gradients=True) as trace, standing_in({head: read}):
        logits_RV = model(input_ids=answers.ids_LT, **after.inputs).logits.flatten(0, 1)
        log_p_RV = logits_RV.detach().float().log_softmax(-1)
        losses_R, gradient_RV = cross_entropy_gradient(log_p_RV, labels_R, weights_R.to(labels_R.device))
        gradients = trace.output_gradients(logits_RV, gradient_RV.to(logits_RV.dtype))
    num_tokens = answers.ids_LT.numel() + (0 if after.prompts is None else after.prompts.ids_LT.numel())
    return _TracedPass(trace.inputs, gradients, real_R, losses_R, num_tokens)
