"""Prompts and answers whose gradients several tests read."""

from __future__ import annotations

from transformers import PreTrainedModel

from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.tokenization import TokenPair

PAIRS = [
    TokenPair((5, 6, 7, 8, 9), (10, 11)),
    TokenPair((12,), (13, 14, 15)),  # a prompt of one token leaves nothing in the cache
    TokenPair((16, 17, 18, 19, 20, 21, 22, 23), (24,)),
    TokenPair((25, 26), (27, 28, 29, 30)),
]


WEIGHTS = [0.5, 0.25, 2.0, 1.0]


def sites(model: PreTrainedModel) -> list[str]:
    """One projection low down and everything that can be edited in the middle layer."""
    anatomy = Anatomy.of(model)
    parts = [f"1.{part}" for part in anatomy.parts if part.endswith("_proj")]
    return [anatomy.site_module(site) for site in ("0.o_proj", *parts)]
