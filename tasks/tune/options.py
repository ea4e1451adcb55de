"""The keys of a search that its own stage reads."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from overedit.editing.methods.base import Range
from overedit.editing.methods.registry import AnyMethod
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.options import EvaluationOptions
from overedit.tasks.models.reference import ModelReference

Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Budget(BaseModel):
    """How much each method may try; the same for all methods of a search."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    trials: int = Field(default=20, ge=1)
    """Settings that are tried, pruned ones included."""
    seconds: float | None = Field(default=None, gt=0)
    """No trial begins once the earlier ones have taken this long together, in seconds; null for no limit."""


class Judging(BaseModel):
    """How the settings of a trial are judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    edit_counts: tuple[int, ...]
    """Where the edited model is looked at; only the last count is measured in full."""
    turn_size: int
    seeds: tuple[Seed, ...]
    evaluation: EvaluationOptions
    capability: CapabilityOptions


class TuneJob(BaseModel):
    """Everything that determines the search of one method, except its edits and texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelReference
    method: AnyMethod
    """The settings that are not searched, and the starting point that the result is compared with."""
    ranges: dict[str, Range]
    budget: Budget
    judging: Judging
    seed: int = 0
