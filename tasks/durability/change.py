"""One more step after a checkpoint's edits, in memory: from the edited tensors to those of the changed model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from overedit.editing.durability.linear_layers import linear_weights
from overedit.editing.durability.merging import merged
from overedit.editing.durability.plain_text import tune_on_text
from overedit.editing.durability.quantization import quantized_weights
from overedit.editing.model.tokenization import encode_texts
from overedit.editing.model.weights import Replacement, WeightUpdate, read_tensors, write_tensors
from overedit.tasks.durability.options import FinetuneOptions, Operation
from overedit.tasks.models.loading import LoadedModel, max_input_tokens


class Changed(NamedTuple):
    """A model after the step; all tensors are on the CPU, in the model's dtype."""

    tensors: dict[str, torch.Tensor]
    """Every tensor that may differ from the base model's: the edited ones, and those that the step has changed."""
    base: dict[str, torch.Tensor]
    """The pristine values of the same parameters."""
    log: dict[str, float]
    """What the step reported."""


def change(
    loaded: LoadedModel,
    edited: Mapping[str, torch.Tensor],
    operation: Operation,
    options: FinetuneOptions,
    texts: Sequence[str],
) -> Changed:
    """Apply an operation to base model + edited tensors.

    Args:
        loaded: The pristine model, which has its own weights again on return.
        edited: Parameter name -> edited tensor.
        operation: The step.
        options: How `finetune` trains.
        texts: What it trains on.

    Raises:
        ValueError: The model's linear layers are not known, or no text has two tokens.
        RuntimeError: Memory ran out.
    """
    model = loaded.model
    layers: Iterable[str] = () if operation.kind == "merge_base" else linear_weights(model)
    base = read_tensors(model, {*edited, *layers})
    log: dict[str, float] = {}
    if operation.kind == "merge_base":
        tensors = merged(edited, base, operation.value)
    else:
        write_tensors(model, edited)
        try:
            if operation.kind == "quantize":
                update = quantized_weights(model, int(operation.value))
            else:
                ids = encode_texts(loaded.tokenizer, texts)
                update, log = _tuned(model, ids, options, int(operation.value))
            tensors = {**edited, **_on_cpu(update)}
        finally:
            write_tensors(model, base)
    return Changed(tensors, {name: base[name] for name in tensors}, log)


def _tuned(
    model: PreTrainedModel, ids: Sequence[Sequence[int]], options: FinetuneOptions, steps: int
) -> tuple[WeightUpdate, dict[str, float]]:
    most = min(options.max_tokens, max_input_tokens(model.config))
    tuned = tune_on_text(model, ids, options.model_copy(update={"max_tokens": most}), steps=steps)
    return tuned.update, {"steps": steps, "first_loss": tuned.losses[0], "last_loss": tuned.losses[-1]}


def _on_cpu(update: WeightUpdate) -> dict[str, torch.Tensor]:
    return {name: part.tensor.cpu() for name, part in update.items() if isinstance(part, Replacement)}
