"""Context templates: texts prepended to a prompt, so that keys and values hold in more than one context.

They are sampled from the pristine model in a trajectory's first turn (ROME, arXiv 2202.05262, section 3.1), with that
turn's seed, and stored in the method's state, so a resumed trajectory uses the same templates.

Shapes: S samples, T tokens, V vocabulary.
"""

from __future__ import annotations

import json
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import State
from overedit.editing.methods.locate_then_edit.subjects import SLOT, Templates, check_templates
from overedit.editing.model.anatomy import context_length
from overedit.editing.model.hooks import frozen
from overedit.editing.model.tokenization import encode_texts

STATE_KEY = "context_templates"
"""Key of the templates in the state: JSON, one byte per element (uint8)."""


class ContextOptions(BaseModel):
    """The contexts in which a prompt is read, besides the bare prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    templates: tuple[tuple[str, ...], ...] | None = None
    """Fixed templates in groups (keys are averaged within a group, then over groups), the first `{}`; None: sample."""
    starts: tuple[Annotated[str, Field(min_length=1)], ...] = ("The", "Therefore", "Because", "I", "You")
    """First words of the sampled texts, one sample each (MEMIT's published settings); empty: the bare prompt alone."""
    num_tokens: int = Field(default=10, ge=1)
    """Tokens sampled after each start (MEMIT's published settings)."""
    top_k: int = Field(default=5, ge=1)
    """Each token is drawn from this many of the most likely ones (published settings)."""

    @field_validator("templates")
    @classmethod
    def _whole(cls, templates: Templates | None) -> Templates | None:
        return check_templates(templates) if templates is not None else None


def context_templates(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: ContextOptions, state: State, *, seed: int
) -> tuple[Templates, State]:
    """The templates of a trajectory, and the state that stores them.

    Args:
        model: The pristine model, if the state holds no templates; bit-identical on return.
        tokenizer: Its tokenizer.
        options: Which templates.
        state: The method's state so far.
        seed: Seed of the sampling.

    Raises:
        ValueError: The texts to be sampled do not fit into the model's context.
    """
    if options.templates is not None:
        return options.templates, {}
    if STATE_KEY not in state:
        sampled = sample_texts(model, tokenizer, options, seed=seed)
        groups = ((SLOT,), *([tuple(f"{text}. {SLOT}" for text in sampled)] if sampled else []))
        text = json.dumps(groups, ensure_ascii=False).encode()
        state = {STATE_KEY: torch.tensor(list(text), dtype=torch.uint8)}
    kept = state[STATE_KEY]
    found = json.loads(bytes(kept.tolist()).decode())
    return tuple(tuple(group) for group in found), {STATE_KEY: kept}


def sample_texts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: ContextOptions, *, seed: int
) -> list[str]:
    """Sample one text for each start; special tokens, line breaks and braces are removed."""
    generator = torch.Generator().manual_seed(seed)
    special = torch.tensor(sorted(tokenizer.all_special_ids), dtype=torch.int64, device=model.device)
    texts = []
    starts = encode_texts(tokenizer, options.starts) if options.starts else []
    context = context_length(model.config)
    longest = options.num_tokens + max(map(len, starts), default=0)
    if context is not None and longest > context:
        raise ValueError(f"contexts.num_tokens: {longest} tokens, start included, exceed the context of {context}")
    with frozen(model), torch.no_grad():
        for start in starts:
            ids_T = torch.tensor(start, device=model.device)
            for _ in range(options.num_tokens):
                logits_V = model(input_ids=ids_T[None], use_cache=False).logits[0, -1].float()
                logits_V[special[special < len(logits_V)]] = float("-inf")
                likeliest = logits_V.topk(min(options.top_k, len(logits_V)))
                drawn = torch.multinomial(likeliest.values.softmax(-1).cpu(), 1, generator=generator)
                ids_T = torch.cat([ids_T, likeliest.indices[drawn.to(model.device)]])
            text = tokenizer.decode(ids_T, skip_special_tokens=True)
            texts.append(" ".join(text.replace("{", " ").replace("}", " ").split()))
    return texts
