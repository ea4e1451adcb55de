"""Rules that merge changes of one tensor, made apart from each other by shards of the edits, into one change.

Every rule acts on each tensor by itself. A single change is returned as it is, whatever the settings: TIES would trim
it, DARE drop most of it, and PCB clip its largest entries and drop most of the others, and none of it removes a
conflict where there is no second change.

Checked against: TIES, DARE and PCB of published implementations on the same changes (golden data).

Shapes: S shards, N entries of the tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from overedit.editing.merging.pcb import Variant, competition_balanced
from overedit.editing.restraints import in_short, kept_at_random, short_form

_BLOCK = 1 << 22
"""Entries of a tensor whose signs are elected at once; it bounds the memory and changes no number."""


class Merge(BaseModel):
    """A rule's settings, and the rule itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    scale: float = Field(default=1.0, gt=0)
    """lambda: what the merged change is multiplied by; papers search it from 0.3 to 1.5."""

    def __str__(self) -> str:
        """See `in_short`."""
        return in_short(self)

    def merged(self, deltas: Sequence[torch.Tensor], *, name: str) -> torch.Tensor:
        """One change of several.

        Args:
            deltas: At least one, of one shape, float32 or float64; they are not changed.
            name: The parameter's name, from which random rules derive their seed.

        Returns:
            Their shape and dtype; the change itself, bit for bit, where there is only one.
        """
        if len(deltas) == 1:
            return deltas[0]
        found = self._merged(deltas, name)
        return found if self.scale == 1 else found * self.scale

    def _merged(self, deltas: Sequence[torch.Tensor], name: str) -> torch.Tensor:
        raise NotImplementedError


class Sum(Merge):
    """The sum of the changes.

    "Editing Models with Task Arithmetic" (Ilharco et al., ICLR 2023, arXiv 2212.04089).
    """

    kind: Literal["sum"] = "sum"

    def _merged(self, deltas: Sequence[torch.Tensor], name: str) -> torch.Tensor:
        return total(deltas)


class Mean(Merge):
    """The mean of the changes."""

    kind: Literal["mean"] = "mean"

    def _merged(self, deltas: Sequence[torch.Tensor], name: str) -> torch.Tensor:
        return total(deltas) / len(deltas)


class Ties(Merge):
    """The mean of those largest entries that have the elected sign.

    "TIES-Merging: Resolving Interference When Merging Models" (Yadav et al., NeurIPS 2023, arXiv 2306.01708), in peft's
    variant: the sign is that of the sum of what is kept, and the sum of the entries with this sign is divided by their
    number. Other implementations divide by the sum of the shards' weights, which is the same where all weigh 1.
    """

    kind: Literal["ties"] = "ties"
    keep: float = Field(default=0.2, gt=0, le=1)
    """The share of each change's entries that is kept, by magnitude (20 % in the paper)."""

    def _merged(self, deltas: Sequence[torch.Tensor], name: str) -> torch.Tensor:
        from peft.utils.merge_utils import magnitude_based_pruning  # peft takes seconds to import

        if self.keep == 1:
            return agreeing_mean(deltas)
        return agreeing_mean([magnitude_based_pruning(delta, self.keep) for delta in deltas])


class Dare(Merge):
    """What two rules have in common that drop entries of each change at random and scale the others up.

    "Language Models are Super Mario" (Yu et al., ICML 2024, arXiv 2311.03099). It keeps each change's mean, not the
    change: outputs lose accuracy where changes are large.
    """

    drop: float = Field(default=0.9, ge=0, lt=1)
    """p: the probability that an entry is dropped; the others are divided by 1 - p."""
    seed: int = 0
    """Seed of the choice; each shard and tensor has its own choice, which is the same at every edit count."""

    def thinned(self, deltas: Sequence[torch.Tensor], name: str) -> list[torch.Tensor]:
        """Each change with its entries dropped."""
        if self.drop == 0:
            return list(deltas)
        kept = [kept_at_random(d.shape, self.drop, f"{self.seed}:{shard}:{name}") for shard, d in enumerate(deltas)]
        return [delta * mask.to(delta.device) / (1 - self.drop) for delta, mask in zip(deltas, kept, strict=True)]


class DareLinear(Dare):
    """DARE, then the sum."""

    kind: Literal["dare_linear"] = "dare_linear"

    def _merged(self, deltas: Sequence[torch.Tensor], name: str) -> torch.Tensor:
        return total(self.thinned(deltas, name))


class DareTies(Dare):
    """DARE in place of TIES' choice by magnitude, then TIES' election and mean."""

    kind: Literal["dare_ties"] = "dare_ties"

    def _merged(self, deltas: Sequence[torch.Tensor], name: str) -> torch.Tensor:
        return agreeing_mean(self.thinned(deltas, name))


class Pcb(Merge):
    """A mean weighted by how large an entry is within its change and how well it agrees with the others.

    "Parameter Competition Balancing for Model Merging" (Du et al., NeurIPS 2024, arXiv 2410.02396).
    """

    kind: Literal["pcb"] = "pcb"
    keep: float = Field(default=0.1, gt=0, le=1)
    """r: the share of each change's entries with a weight above 0 (10 % in the paper; also 5 %)."""
    variant: Variant = "root"
    """Four variants of the published code give different numbers; `root` is the paper's, with the tails clipped at
    0.01 %. `nlp` clips at 1 %; `vision` and `evolution` do as well, and compare scaled changes."""

    def _merged(self, deltas: Sequence[torch.Tensor], name: str) -> torch.Tensor:
        return competition_balanced(deltas, keep=self.keep, variant=self.variant)


AnyMerge = Annotated[
    Annotated[Sum | Mean | Ties | DareLinear | DareTies | Pcb, Field(discriminator="kind")],
    BeforeValidator(short_form),
]
"""Any rule; a configuration may write its kind alone: `merge: pcb`."""


def total(deltas: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of changes of one shape, in their order."""
    found = deltas[0].clone()
    for delta in deltas[1:]:
        found += delta
    return found


def agreeing_mean(deltas: Sequence[torch.Tensor]) -> torch.Tensor:
    """TIES' election and mean (arXiv 2306.01708, section 3): entry by entry, the mean of those with the sum's sign.

    Args:
        deltas: Of one shape; an entry of 0 takes no part.

    Returns:
        Their shape; 0 where every entry is 0.
    """
    from peft.utils.merge_utils import calculate_majority_sign_mask, disjoint_merge  # peft takes seconds to import

    rows = [delta.reshape(-1) for delta in deltas]
    found_N = torch.empty_like(rows[0])
    for first in range(0, len(found_N), _BLOCK):
        block_SN = torch.stack([row_N[first : first + _BLOCK] for row_N in rows])
        found_N[first : first + _BLOCK] = disjoint_merge(block_SN, calculate_majority_sign_mask(block_SN))
    return found_N.reshape(deltas[0].shape)
