"""The configuration of a search among sites."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from overedit.flows.config.models import EditingConfig
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.options import EvaluationOptions, MeasureOptions, PerplexityOptions
from overedit.tasks.locate.options import SiteOptions
from overedit.tasks.locate.sweep import SweepJob

_EVALUATION: Mapping[str, Any] = MappingProxyType(
    {"protocols": ("generated",), "probes": ("edit", "rephrase", "locality"), "max_locality": 2}
)


class LocateConfig(EditingConfig):
    """A search among sites: one method, a short trajectory at each site, and the best sites again on other edits."""

    sites: SiteOptions = SiteOptions()
    """The sites that are tried, in place of those of the method."""
    edits: int = Field(default=100, ge=2)
    """Validation edits, made at each site: the first of the dataset in its order, without those of `not_in`."""
    test_edits: int = Field(default=0, ge=0)
    """Other edits, the next ones, on which the best sites are measured again; 0 for none."""
    test_sites: Literal["all"] | Annotated[int, Field(ge=1)] = 5
    """How many of the best sites are measured on the test edits; with `all`, the best of them is known."""
    not_in: str | None = None
    """A benchmark's configuration: a YAML file, or the name of one that comes with Overedit. Edits of a prompt that it
    edits are left out, so that a site is not chosen by what it will be judged by."""
    seeds: tuple[Annotated[int, Field(ge=-(2**63), lt=2**63)], ...] = Field(default=(0,), min_length=1)
    """Seeds of the editing; a site is trained once for each, and its scores are averaged."""
    turn_size: int = Field(default=100, ge=1)
    """The edits of one call of the method; methods that take all edits so far take all in one."""
    evaluation: EvaluationOptions = EvaluationOptions(**_EVALUATION)
    """Which probes are asked, by default edit, rephrase and two locality prompts, and under which protocols, by default
    `generated` alone. Sites are ranked under each protocol, and the first one proposes."""
    perplexity: PerplexityOptions = PerplexityOptions()
    """The text on which perplexity is measured; it is shown beside the score."""
    capability: CapabilityOptions = CapabilityOptions()
    """The general benchmarks, measured at each site unless `when` is `never`."""
    engine: EngineOptions = EngineOptions(kind="transformers")
    """How prompts are answered; always by transformers, on the model in memory."""
    shared_prefix: bool = True
    """Whether sites share the forward passes below them; the scores are the same, the time is not."""

    @field_validator("engine")
    @classmethod
    def _in_memory(cls, engine: EngineOptions) -> EngineOptions:
        if engine.kind == "vllm":
            raise ValueError(
                "kind: vllm is not accepted, since sites are edited in memory; accepted: auto, transformers"
            )
        if engine.workers > 1:
            raise ValueError(
                "tensor_parallel and pipeline_parallel: only 1 is accepted, since sites are edited in memory"
            )
        return engine

    @field_validator("evaluation", mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Complete what is given by this search's own defaults, not by those of a benchmark."""
        return {**_EVALUATION, **given} if isinstance(given, dict) else given

    @field_validator("evaluation")
    @classmethod
    def _scored(cls, evaluation: EvaluationOptions) -> EvaluationOptions:
        if not {"edit", "rephrase", "locality"} & {*evaluation.probes}:
            raise ValueError("probes: none of edit, rephrase and locality is asked, which the score is the mean of")
        return evaluation

    @model_validator(mode="after")
    def _one_method(self) -> LocateConfig:
        if len(self.methods) != 1:
            raise ValueError(f"methods: {len(self.methods)} are given; exactly one is accepted")
        return self

    @property
    def measure(self) -> MeasureOptions:
        """How each site is measured."""
        return MeasureOptions(
            evaluation=self.evaluation, perplexity=self.perplexity, capability=self.capability, engine=self.engine
        )

    def job(self, sites: tuple[str, ...]) -> SweepJob:
        """The sweep over sites."""
        return SweepJob(
            model=self.model_reference,
            method=self.methods[0],
            sites=sites,
            seeds=self.seeds,
            turn_size=self.turn_size,
            measure=self.measure,
            shared_prefix=self.shared_prefix,
        )
