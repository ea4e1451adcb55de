"""Sequence packing: several token sequences share one row of a batch, so that little padding is computed.

The attention mask and the position ids keep the sequences of a pack apart. Each sequence is split in two. Its prompt
runs first, without a graph, and leaves its keys and values in a cache. The rest runs after it; attention is causal, so
it changes nothing of the prompt.

Shapes: L packs, T tokens of a pack (padding included), Q and K tokens of queries and keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache, PreTrainedModel

from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.hooks import standing_in
from overedit.editing.model.tokenization import TokenPair, pad

Fragment = tuple[int, Sequence[int], int]
"""The part of a pack that one sequence fills: owner (its number), ids, first position."""


class PackedTokens(NamedTuple):
    """Token sequences in packs, padded at the end."""

    ids_LT: torch.Tensor
    """int64."""
    positions_LT: torch.Tensor
    """int64, position of each token in its own sequence; 0 for padding."""
    owners_LT: torch.Tensor
    """int64, the sequence of each token; -1 for padding."""


class AfterPrompts(NamedTuple):
    """Inputs of a pass that continues cached prompts."""

    inputs: dict[str, Any]
    """Cache, attention mask and position ids, as arguments of the model."""
    prompts: PackedTokens | None
    """The packed tokens of the cache; None if it is empty."""


def check_attention(model: PreTrainedModel) -> None:
    """Check that the model's attention accepts a four-dimensional mask.

    Raises:
        ValueError: It does not, as flash attention.
    """
    if _is_flash(model):
        raise ValueError("attention: flash attention takes no mask of this kind; load the model with sdpa or eager")


def takes_mask(model: PreTrainedModel, longest: int) -> bool:
    """Whether attention among sequences of at most `longest` tokens can be said by a four-dimensional mask."""
    window = getattr(model.config, "sliding_window", None)  # some Qwen2 MoE have 0 for none
    return not _is_flash(model) and (not window or longest <= window)


def _is_flash(model: PreTrainedModel) -> bool:
    return str(getattr(model.config, "_attn_implementation", "")).startswith("flash")


def plan_packs(pairs: Sequence[TokenPair], pack_tokens: int) -> list[list[int]]:
    """Distribute pairs over packs of about `pack_tokens`, evenly in prompt tokens and in answer tokens.

    Longest first, each to the pack with the smallest resulting load (Graham's rule; the load is the larger of the two).
    """
    prompts, answers = [len(pair.prompt) - 1 for pair in pairs], [len(pair.target) for pair in pairs]
    total_prompt, total_answer = max(sum(prompts), 1), sum(answers)
    count = min(len(pairs), max(1, round((total_prompt + total_answer) / pack_tokens)))
    packs: list[list[int]] = [[] for _ in range(count)]
    filled = [(0, 0)] * count
    for i in sorted(range(len(pairs)), key=lambda i: -prompts[i] / total_prompt - answers[i] / total_answer):
        after = [(prompt + prompts[i], answer + answers[i]) for prompt, answer in filled]
        best = min(range(count), key=lambda pack: max(after[pack][0] / total_prompt, after[pack][1] / total_answer))
        packs[best].append(i)
        filled[best] = after[best]
    return packs


def lay_out(packs: Sequence[Sequence[Fragment]], device: torch.device) -> PackedTokens:
    """Concatenate the fragments (owner, ids, first position) of each pack."""
    ids = [[token for _, fragment, _ in pack for token in fragment] for pack in packs]
    positions = [[first + step for _, fragment, first in pack for step in range(len(fragment))] for pack in packs]
    owners = [[owner for owner, fragment, _ in pack for _ in fragment] for pack in packs]
    filling = next(token for pack in ids for token in pack)  # a real token: some models warn about a pad id
    return PackedTokens(
        *(pad(lists, value=value).to(device) for lists, value in ((ids, filling), (positions, 0), (owners, -1)))
    )


def mask_of(queries: PackedTokens, keys: Sequence[PackedTokens], dtype: torch.dtype) -> torch.Tensor:
    """The additive mask (L, 1, Q, K): a token sees its own sequence up to itself; padding sees padding."""
    owners_LK = torch.cat([part.owners_LT for part in keys], 1)
    positions_LK = torch.cat([part.positions_LT for part in keys], 1)
    seen_LQK = (queries.owners_LT[:, :, None] == owners_LK[:, None]) & (
        queries.positions_LT[:, :, None] >= positions_LK[:, None]
    )
    return additive_mask(seen_LQK, dtype)


def additive_mask(seen_LQK: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The mask (L, 1, Q, K) that attention takes: 0 where a query sees a key, the least number of a dtype elsewhere."""
    mask_LQK = torch.zeros(seen_LQK.shape, dtype=dtype, device=seen_LQK.device)
    return mask_LQK.masked_fill_(~seen_LQK, torch.finfo(dtype).min)[:, None]


@torch.no_grad()
def run_prompts(
    model: PreTrainedModel, anatomy: Anatomy, fragments: Sequence[Sequence[Fragment]], answers: PackedTokens
) -> AfterPrompts:
    """Run the prompts and cache their keys and values, for the answers to continue from.

    Args:
        model: In evaluation mode.
        anatomy: The model's.
        fragments: The prompts of each pack; empty for a sequence without tokens before its answer.
        answers: The tokens that will follow, in the same packs and with the same owners.
    """
    alone = len(fragments) == len(fragments[0]) == 1
    if not any(ids for pack in fragments for _, ids, _ in pack):
        mask = {} if alone else {"attention_mask": mask_of(answers, [answers], model.dtype)}
        return AfterPrompts(mask | {"position_ids": answers.positions_LT, "use_cache": False}, None)
    prompts = lay_out(fragments, model.device)
    # packs are longer than their sequences, so a sliding-window cache would drop tokens of theirs
    cache = DynamicCache(config=model.config) if alone else DynamicCache()
    inputs: dict[str, Any] = {"past_key_values": cache, "use_cache": True}
    masks = {} if alone else {"attention_mask": mask_of(prompts, [prompts], model.dtype)}
    last_mlp = model.get_submodule(anatomy.site_module(f"{anatomy.num_layers - 1}.mlp"))
    with standing_in({last_mlp: pass_on, model.get_submodule(anatomy.final_norm): pass_on}):
        backbone = model.get_submodule(anatomy.backbone)
        backbone(input_ids=prompts.ids_LT, position_ids=prompts.positions_LT, **masks, **inputs)
    masks = {} if alone else {"attention_mask": mask_of(answers, [prompts, answers], model.dtype)}
    return AfterPrompts(inputs | masks | {"position_ids": answers.positions_LT}, prompts)


def pass_on(hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """Replacement for a module whose output is not needed."""
    return hidden
