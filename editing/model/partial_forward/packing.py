"""Packs: several token sequences behind each other, so that little padding is computed.

The attention mask and the tokens' own positions keep the sequences of a pack apart. A sequence is cut in two: its
prompt, which runs first, without a graph, and leaves its keys and values in a cache; and what follows, for which
attention is causal, so that nothing there changes what the prompt left.

Shapes: L packs, T tokens of a pack (padding included), Q and K those of queries and keys.
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
"""A sequence's part of a pack: owner, ids, first position."""


class PackedTokens(NamedTuple):
    """Token sequences laid out in packs, padded at the end."""

    ids_LT: torch.Tensor
    """int64."""
    positions_LT: torch.Tensor
    """int64, place of a token in its own sequence; 0 for padding."""
    owners_LT: torch.Tensor
    """int64, which sequence a token belongs to; -1 for padding."""


class AfterPrompts(NamedTuple):
    """What a pass needs to go on behind prompts that have run."""

    inputs: dict[str, Any]
    """Cache, attention mask and positions, as the model takes them."""
    prompts: PackedTokens | None
    """How the cached tokens lie; None where there are none."""


def check_attention(model: PreTrainedModel) -> None:
    """Make sure that the model's attention takes a mask of its own shape.

    Raises:
        ValueError: It does not (flash attention).
    """
    if str(getattr(model.config, "_attn_implementation", "")).startswith("flash"):
        raise ValueError("attention: flash attention takes no mask of this kind; load the model with sdpa or eager")


def plan_packs(pairs: Sequence[TokenPair], pack_tokens: int) -> list[list[int]]:
    """Spread pairs over packs of about `pack_tokens`, evenly in prompt tokens and in answer tokens.

    The longest first, each to the pack that it leaves fullest the least (Graham's rule, for the fuller of the two).
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
    """Lay fragments (owner, ids, first position) behind each other in their packs."""
    ids = [[token for _, fragment, _ in pack for token in fragment] for pack in packs]
    positions = [[first + step for _, fragment, first in pack for step in range(len(fragment))] for pack in packs]
    owners = [[owner for owner, fragment, _ in pack for _ in fragment] for pack in packs]
    filling = next(token for pack in ids for token in pack)  # a real token: a pad id would make some models warn
    return PackedTokens(
        *(pad(lists, value=value).to(device) for lists, value in ((ids, filling), (positions, 0), (owners, -1)))
    )


def mask_of(queries: PackedTokens, keys: Sequence[PackedTokens], dtype: torch.dtype) -> torch.Tensor:
    """The additive mask (L, 1, queries, keys): own sequence and no later place; padding sees padding."""
    owners_LK = torch.cat([part.owners_LT for part in keys], 1)
    positions_LK = torch.cat([part.positions_LT for part in keys], 1)
    seen_LQK = (queries.owners_LT[:, :, None] == owners_LK[:, None]) & (
        queries.positions_LT[:, :, None] >= positions_LK[:, None]
    )
    mask_LQK = torch.zeros(seen_LQK.shape, dtype=dtype, device=seen_LQK.device)
    return mask_LQK.masked_fill_(~seen_LQK, torch.finfo(dtype).min)[:, None]


@torch.no_grad()
def run_prompts(
    model: PreTrainedModel, anatomy: Anatomy, fragments: Sequence[Sequence[Fragment]], answers: PackedTokens
) -> AfterPrompts:
    """Run the prompts, so that the answers can go on from them: only their keys and values are computed.

    Args:
        model: In evaluation mode.
        anatomy: The model's.
        fragments: The prompts of each pack; empty ones where a sequence has nothing before its answer.
        answers: What will run behind them, in the same packs and with the same owners.
    """
    alone = len(fragments) == len(fragments[0]) == 1
    if not any(ids for pack in fragments for _, ids, _ in pack):
        mask = {} if alone else {"attention_mask": mask_of(answers, [answers], model.dtype)}
        return AfterPrompts(mask | {"position_ids": answers.positions_LT, "use_cache": False}, None)
    prompts = lay_out(fragments, model.device)
    # packs are longer than their sequences, so the cache must not forget; a sequence alone is the model's own business
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
    """Stands in for a module that need not compute."""
    return hidden
