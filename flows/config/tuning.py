"""The configuration of a search for settings; these are the keys of a configuration file of `overedit tune`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from overedit.editing.methods.base import MethodConfig, Range
from overedit.editing.methods.registry import METHODS
from overedit.editing.trajectory.runner import check_counts
from overedit.flows.config.models import EditingConfig
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.options import EvaluationOptions, PerplexityOptions
from overedit.tasks.tune.options import Budget, Judging, Seed, TuneJob
from overedit.tasks.warehouse.vocabulary import ProbeKind

_PROBES: tuple[ProbeKind, ...] = ("edit", "rephrase", "locality")


class TuneConfig(EditingConfig):
    """A search for the settings of methods, each with the same budget, on edits that no benchmark has."""

    not_in: tuple[str, ...] = Field(min_length=1)
    """Benchmark configurations (files, or names such as `demo`) whose edits the search may not see. The test edits are
    those of the first."""
    skip: int = Field(default=0, ge=0)
    """How many of the first edits of the dataset are left to the benchmarks; the validation edits are the others."""
    shared_edits: Literal["refuse", "leave_out"] = "refuse"
    """What is done with validation edits that are edits of a benchmark; they are never searched on."""
    shared_subjects: Literal["refuse", "accept", "leave_out"] = "refuse"
    """What is done with validation edits about subjects of a benchmark's edits, with other prompts.

    With `accept`, the test edits are the benchmark's about no subject of the validation edits.
    """
    ranges: dict[str, dict[str, Range | None]] = Field(default_factory=dict)
    """Method -> setting, as a dotted key -> its values: `[low, high]`, `{low, high, log}` or a list of choices.

    They replace those that the method declares; null leaves a setting out of the search.
    """
    budget: Budget = Budget()
    """How much each method may try."""
    seeds: tuple[Seed, ...] = Field(default=(0, 1), min_length=1)
    """Seeds of the order of the edits and of the editing; each trial is measured with all of them."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the search."""
    edit_counts: tuple[int, ...] = (100, 200)
    """Where a trial is looked at: it may be pruned at each, and is measured in full at the last."""
    turn_size: int = Field(default=100, ge=1)
    """The edits of one call of a method."""
    evaluation: EvaluationOptions = EvaluationOptions(protocols=("generated",), probes=_PROBES)
    """Which cases are asked; `sample` makes a trial faster."""
    perplexity: PerplexityOptions = PerplexityOptions()
    """The text on which perplexity is measured, one of the cheap probes."""
    capability: CapabilityOptions = CapabilityOptions()
    """The general benchmarks; `limit` makes a trial faster."""

    @model_validator(mode="after")
    def _countable(self) -> Self:
        check_counts(self.edit_counts)
        inside = [count for count in self.edit_counts[:-1] if count % self.turn_size]
        if inside:
            raise ValueError(
                f"edit_counts: {inside[0]} is inside a turn; accepted before the last one: multiples of turn_size, "
                f"{self.turn_size}"
            )
        return self

    @model_validator(mode="after")
    def _judgeable(self) -> Self:
        if self.evaluation.protocols != ("generated",):
            raise ValueError("evaluation.protocols: the objective takes [generated], and nothing else is asked")
        if "edit" not in self.evaluation.probes or set(self.evaluation.probes) - set(_PROBES):
            raise ValueError(f"evaluation.probes: accepted are edit, and beside it any of {', '.join(_PROBES[1:])}")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} holds a seed twice")
        return self

    @model_validator(mode="after")
    def _ranges_of_methods(self) -> Self:
        named = {method.method for method in self.methods}
        strange = sorted(self.ranges.keys() - named)
        if strange:
            raise ValueError(f"ranges: {strange[0]} is not among methods; accepted: {', '.join(sorted(named))}")
        return self

    def ranges_of(self, method: MethodConfig) -> dict[str, Range]:
        """Setting -> its values: the method's own ranges, with those of the configuration."""
        both = {**METHODS[method.method].ranges, **self.ranges.get(method.method, {})}
        return {name: values for name, values in both.items() if values is not None}

    @property
    def judging(self) -> Judging:
        """How the settings of a trial are judged."""
        return Judging(
            edit_counts=self.edit_counts,
            turn_size=self.turn_size,
            seeds=self.seeds,
            evaluation=self.evaluation,
            capability=self.capability,
        )

    def job(self, method: MethodConfig) -> TuneJob:
        """The search of one method."""
        return TuneJob(
            model=self.model_reference,
            method=method,
            ranges=self.ranges_of(method),
            budget=self.budget,
            judging=self.judging,
            seed=self.seed,
        )
