"""Further training of an edited model on plain text: full fine-tuning of its linear layers with Adam, for a few steps.

The loss of a batch is the mean negative log-likelihood of all its tokens but each text's first. The model is never
written to: the trained values are float32 copies used in place of its parameters. Nothing is random but the order of
the texts, which has a seed.

Shapes: B texts of a batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch.func import functional_call
from transformers import PreTrainedModel

from overedit.editing.durability.linear_layers import linear_weights
from overedit.editing.model.hooks import frozen
from overedit.editing.model.memory import OomHalver
from overedit.editing.model.tokenization import pad
from overedit.editing.model.weights import Replacement, WeightUpdate


class PlainTextTuning(BaseModel):
    """How an edited model is trained further on plain text."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    weights: Literal["linear", "mlp"] = "linear"
    """What is trained: all linear layers of the decoder, or those of its MLPs. The rest is frozen."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Step size of Adam, constant."""
    batch_size: int = Field(default=8, ge=1)
    """Texts of a step."""
    max_tokens: int = Field(default=128, ge=2)
    """Tokens after which a text is cut, at most the model's context."""
    seed: int = 0
    """Seed of the order of the texts."""


class Tuned(NamedTuple):
    """What the training did."""

    update: WeightUpdate
    """Parameter name -> trained values, in the parameter's dtype and on its device."""
    losses: list[float]
    """Loss of each step before its update, in nats per token."""


def tune_on_text(
    model: PreTrainedModel, texts: Sequence[Sequence[int]], options: PlainTextTuning, *, steps: int
) -> Tuned:
    """Train the linear layers of a model on texts.

    Args:
        model: Bit-identical on return, gradient flags and training mode included.
        texts: Token ids, at least one text of two tokens or more; each is seen once before any is seen again.
        options: Settings.
        steps: At least 1.

    Raises:
        ValueError: No text has two tokens; or as `linear_weights`.
        torch.OutOfMemoryError: A single text does not fit (a RuntimeError on a CPU).
    """
    usable = [tuple(ids[: options.max_tokens]) for ids in texts if len(ids) > 1]
    if not usable:
        raise ValueError("texts: none has two tokens or more, so there is nothing to train on")
    own = {name: module.get_parameter("weight") for name, module in _trained(model, options).items()}
    values = {name: weight.detach().float().clone().requires_grad_() for name, weight in own.items()}
    optimizer = torch.optim.Adam(list(values.values()), options.learning_rate)
    halving, losses = OomHalver(), []
    with frozen(model), torch.enable_grad():
        for batch in _batches(usable, options, steps):
            optimizer.zero_grad(set_to_none=True)
            losses.append(_descend(model, values, batch, halving))
            optimizer.step()
    update: WeightUpdate = {name: Replacement(value.detach().to(own[name].dtype)) for name, value in values.items()}
    return Tuned(update, losses)


def _trained(model: PreTrainedModel, options: PlainTextTuning) -> dict[str, torch.nn.Module]:
    return linear_weights(model, mlp_only=options.weights == "mlp")


def _batches(texts: Sequence[tuple[int, ...]], options: PlainTextTuning, steps: int) -> Iterator[list[tuple[int, ...]]]:
    """The batches of all steps: the texts in a random order, then in another one, and so on."""
    chooser = random.Random(options.seed)
    waiting: list[tuple[int, ...]] = []
    for _ in range(steps):
        while len(waiting) < options.batch_size:
            waiting += chooser.sample(list(texts), len(texts))
        yield waiting[: options.batch_size]
        waiting = waiting[options.batch_size :]


def _descend(
    model: PreTrainedModel, values: dict[str, torch.Tensor], batch: Sequence[tuple[int, ...]], halving: OomHalver
) -> float:
    """Set the gradients of a batch's loss, which is returned; a batch that exceeds the memory is run in parts."""
    num_terms, loss = sum(len(ids) - 1 for ids in batch), 0.0

    def run(part: Sequence[tuple[int, ...]]) -> tuple[float, Sequence[torch.Tensor]]:
        own = _summed_nll(model, values, part) / num_terms
        return own.item(), torch.autograd.grad(own, list(values.values()))

    for _, (own, gradients) in halving.run([batch], run, size=lambda part: sum(map(len, part))):
        loss += own
        for value, gradient in zip(values.values(), gradients, strict=True):
            value.grad = gradient if value.grad is None else value.grad + gradient
    return loss


def _summed_nll(
    model: PreTrainedModel, values: dict[str, torch.Tensor], texts: Sequence[tuple[int, ...]]
) -> torch.Tensor:
    """Summed negative log-likelihood of the texts' tokens; padding is on the right, where attention does not look."""
    ids_BT = pad(texts, value=0).to(model.device)
    lengths_B = torch.tensor([len(ids) for ids in texts], device=model.device)
    real_BT = torch.arange(ids_BT.shape[1], device=model.device) < lengths_B[:, None]
    parameters = {name: value.to(model.get_parameter(name).dtype) for name, value in values.items()}
    arguments = {"input_ids": ids_BT, "attention_mask": real_BT.long(), "use_cache": False}
    logits_BTV = functional_call(model, parameters, (), arguments).logits.float()
    log_p_BTV = logits_BTV[:, :-1].log_softmax(-1)
    nll_BT = -log_p_BTV.gather(-1, ids_BT[:, 1:, None])[..., 0]
    summed: torch.Tensor = nll_BT.masked_select(real_BT[:, 1:]).sum()
    return summed
