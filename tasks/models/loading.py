"""Loading a model for editing."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from overedit.editing.model.anatomy import context_length
from overedit.tasks.models.reference import ModelReference


class LoadedModel(NamedTuple):
    """A model ready to be edited."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_model(reference: ModelReference, *, device: torch.device | None = None) -> LoadedModel:
    """Load a model for editing; no remote code is run.

    Args:
        reference: Which model.
        device: Where to; by default the GPU where there is one. On the CPU the files are mapped, not read.

    Raises:
        ValueError: There is no such model, or it cannot be reached.
    """
    where = reference.locate()
    transformers_logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, revision=reference.revision, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            where,
            dtype=reference.dtype,
            revision=reference.revision,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except OSError as error:
        raise ValueError(
            f"model: {reference.name} can be neither found here nor fetched from the hub: {error}"
        ) from error
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return LoadedModel(model.to(device).eval(), tokenizer)


def max_input_tokens(config: PreTrainedConfig) -> int:
    """The longest input that is given to a model, in tokens: its context, or 1,024 if its configuration has none."""
    return context_length(config) or 1024


def editing_threads() -> int:
    """Torch threads for editing on a CPU: all cores that this process may use but one, which is left to the servers.

    One thread too many costs more than it gains: threads wait for one another when another process holds a core.
    """
    return max(1, len(os.sched_getaffinity(0)) - 1)
