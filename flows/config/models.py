"""The configuration of a benchmark run, one record a concern; these are the keys of a configuration file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

from overedit.editing.methods.base import CovarianceOptions, MethodConfig
from overedit.editing.methods.registry import METHODS, AnyMethod
from overedit.editing.trajectory.runner import check_counts
from overedit.flows.config.beside_weights import check_beside_weights, refuse_beside_weights
from overedit.flows.config.preset_files import UsedPreset, with_preset_files
from overedit.flows.config.presets import asked_of_run, check_known, missing
from overedit.tasks.data.options import DatasetOptions
from overedit.tasks.durability.options import AfterKeys
from overedit.tasks.editing_job.job import EditingJob
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.options import EvaluationOptions, PerplexityOptions
from overedit.tasks.evaluation.paper_protocols import PRESETS
from overedit.tasks.execution.options import Execution, LocalExecution
from overedit.tasks.models.placement import Placement
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.pocket_world.shipped import WORLDS
from overedit.tasks.report.comparison.limits import GateOptions
from overedit.tasks.runs.run import NAME, folder_name, name_fault
from overedit.tasks.search.options import SearchOptions
from overedit.tasks.storage.options import Home


class EditingConfig(BaseModel):
    """The keys that every kind of run has: a model, the requests, and the methods that edit the model with them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=NAME)
    """The run's name; the same name with the same configuration continues the run."""
    home: Home = Path()
    """The folder of `warehouse/`, `runs/` and `reports/`; or its URL in an object store, e.g. `s3://bucket/results`."""
    model: str = "pocket"
    """A Hugging Face model folder, a hub name, or `pocket` (the shipped model)."""
    revision: str | None = None
    """A hub model's branch, tag or commit."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The weights' dtype for editing; `auto` is the one they are stored in."""
    dataset: DatasetOptions
    """Where the edit requests come from."""
    methods: tuple[AnyMethod, ...] = Field(min_length=1)
    """The methods to compare; a field left out takes the published preset for the model, where there is one.

    `{preset: FILE}` takes the settings that `overedit tune` has written.
    """
    covariance: CovarianceOptions | None = None
    """The text of the keys' covariance, for all methods that need one and do not name their own."""
    preset_files: tuple[UsedPreset, ...] | None = None
    """The preset files that the methods name; filled in, never given."""
    tuned_edits: Literal["refuse", "accept", "leave_out"] | None = None
    """What is done with edits that a preset file was tuned on; by default they are refused."""

    @model_validator(mode="before")
    @classmethod
    def _fill_presets(cls, values: Any) -> Any:
        """Fill in missing fields of methods from the run's covariance and the published preset for the model."""
        if not isinstance(values, dict) or not isinstance(values.get("methods"), list | tuple):
            return values
        model, covariance = str(values.get("model", "pocket")), values.get("covariance")
        if isinstance(covariance, CovarianceOptions):
            covariance = covariance.model_dump(exclude_unset=True)
        methods, used = with_preset_files(values["methods"])
        methods = [with_preset(_with_covariance(method, covariance), model) for method in methods]
        return values | {"methods": methods} | ({"preset_files": used} if used else {})

    @field_validator("name", mode="before")
    @classmethod
    def _name_in_words(cls, name: Any) -> Any:
        """Say what is accepted in words: a message by `pattern` would show the expression alone."""
        if isinstance(name, str) and (fault := name_fault(name)) is not None:
            raise ValueError(fault)
        return name

    @cached_property
    def model_reference(self) -> ModelReference:
        """The model to edit; its weights are digested once."""
        return ModelReference(self.model, self.revision, self.dtype)

    @property
    def labels(self) -> tuple[str, ...]:
        """Each method's name in plots and tables; of the same method, configurations are named by differing fields."""
        return tuple(_label(method, self.methods) for method in self.methods)


class BenchmarkConfig(AfterKeys, EditingConfig):
    """One run: a model and a dataset, the methods, the edit counts to stop at, and what is measured there."""

    edit_counts: tuple[int, ...] | SearchOptions = (1, 10, 100, 1000)
    """The edit counts at which each trajectory is measured; 0, the pristine model, is always measured.

    `{search: collapse, ...}` lets a search choose them, until it has bracketed the collapse.
    """
    turn_size: int = Field(default=100, ge=1)
    """The edits of one call of a method (cumulative methods take all so far), from edit 0 on, whatever is measured.

    A count in between is a branch: it is measured and not continued from.
    """
    order_seeds: tuple[Annotated[int, Field(ge=-(2**63), lt=2**63)], ...] = Field(default=(0,), min_length=1)
    """Seeds of the order of the requests; each makes one trajectory per method."""
    presets: tuple[str, ...] = ()
    """Papers' own protocols (`overedit presets`); they fill in the keys that are not given."""
    evaluation: EvaluationOptions = EvaluationOptions()
    """Which cases and probes are asked, and under which protocols."""
    perplexity: PerplexityOptions = PerplexityOptions()
    """The text on which perplexity is measured."""
    capability: CapabilityOptions = CapabilityOptions()
    """The general benchmarks, by lm-eval."""
    engine: EngineOptions = EngineOptions()
    """The engine that answers the prompts."""
    gate: GateOptions | None = None
    """What fails the run when it is compared with the accepted instance of the same name."""
    editing: Placement = Placement()
    """Where the model's weights lie while it is edited, for models larger than a GPU: `{placement: layers}` or
    `{offload: cpu}`. The results are the same."""
    execution: Execution = LocalExecution()
    """Where editing and measuring are done: `{engine: local}`, or `{engine: ray, editors: 4, engines: 2}`.

    The results are the same.
    """

    @model_validator(mode="before")
    @classmethod
    def _fill_protocols(cls, values: Any) -> Any:
        """Fill in the values that the presets ask for; unknown names are reported by the field `presets` itself."""
        if not isinstance(values, dict) or not isinstance(values.get("presets"), list | tuple):
            return values
        asked = asked_of_run([PRESETS[name] for name in values["presets"] if name in tuple(PRESETS)], values)
        return _completed(values, asked)

    @field_validator("presets", mode="before")
    @classmethod
    def _known_presets(cls, names: Any) -> Any:
        if not isinstance(names, list | tuple):
            raise ValueError("a list of presets is expected, e.g. [wild, ultraedit]")
        return tuple(dict.fromkeys(check_known(name) for name in names))

    @model_validator(mode="after")
    def _whole_presets(self) -> Self:
        needed = missing((PRESETS[name] for name in self.presets), self.model_dump())
        if needed:
            raise ValueError(f"presets: {'; '.join(needed)}")
        return self

    @model_validator(mode="after")
    def _gate_has_a_probe(self) -> Self:
        if self.capability.when == "gated" and self.perplexity.corpus is None:
            raise ValueError(
                "capability.when: 'gated' needs perplexity.corpus, since perplexity decides where capability is "
                "measured; without one 'every', 'last' and 'never' are accepted"
            )
        return self

    @field_validator("edit_counts", mode="wrap")
    @classmethod
    def _list_or_search(cls, value: Any, _: Any) -> Any:
        """Validate what was meant, so that an error does not name both kinds."""
        if isinstance(value, SearchOptions):
            return value
        return TypeAdapter[Any](SearchOptions if isinstance(value, dict) else tuple[int, ...]).validate_python(value)

    @field_validator("edit_counts")
    @classmethod
    def _increasing(cls, counts: tuple[int, ...] | SearchOptions) -> tuple[int, ...] | SearchOptions:
        if isinstance(counts, SearchOptions):
            return counts
        edited = tuple(count for count in counts if count != 0)  # 0 is always measured
        if not edited:
            raise ValueError(f"{list(counts)} names no count of edits; the pristine model, 0, is measured anyway")
        try:
            check_counts(edited)
        except ValueError as error:
            raise ValueError(str(error).removeprefix("edit_counts: ")) from None
        return edited

    @model_validator(mode="after")
    def _search_measures_what_it_asks(self) -> Self:
        if isinstance(self.edit_counts, SearchOptions):
            self.edit_counts.check_measured(
                capability=bool(self.capability.asked) and self.capability.when == "every",
                perplexity=self.perplexity.corpus is not None,
                generated="generated" in self.evaluation.protocols,
            )
        return self

    @model_validator(mode="after")
    def _after_is_possible(self) -> Self:
        check_beside_weights(self.methods, engine=self.engine.kind, after=self.after)
        counts = None if isinstance(self.edit_counts, SearchOptions) else self.edit_counts
        self.check_after(edit_counts=counts, has_text=self.perplexity.corpus is not None)
        return self

    @property
    def search(self) -> SearchOptions | None:
        """The search that chooses the edit counts; None where they are given."""
        return self.edit_counts if isinstance(self.edit_counts, SearchOptions) else None

    @property
    def is_local(self) -> bool:
        """Whether every input is a local file or comes with Overedit, so that none can change on a hub."""
        covariances = [options for method in self.methods if (options := method.covariance_options) is not None]
        named = [self.model, *(options.corpus for options in covariances)]
        named += [str(name) for name in (self.perplexity.corpus, self.after_finetune.corpus) if name is not None]
        dataset_is_local = self.dataset.name in WORLDS or self.dataset.path is not None
        own_items = all(task.name in self.capability.files for task in self.capability.asked)
        tasks_are_local = own_items or self.capability.world is not None
        return dataset_is_local and tasks_are_local and all(name in WORLDS or Path(name).exists() for name in named)

    def trajectories(self) -> Iterator[Trajectory]:
        """Every method on every ordering."""
        for order_seed in self.order_seeds:
            for label, method in zip(self.labels, self.methods, strict=True):
                job = EditingJob(
                    model=self.model_reference,
                    method=method,
                    edit_counts=() if isinstance(self.edit_counts, SearchOptions) else self.edit_counts,
                    turn_size=self.turn_size,
                    seed=order_seed,
                    placement=self.editing,
                )
                yield Trajectory(folder_name(label), label, order_seed, job)


class Trajectory(NamedTuple):
    """One method on one ordering of the requests."""

    name: str
    label: str
    order_seed: int
    job: EditingJob


class ScanConfig(EditingConfig):
    """A scan for hard cases: every request is edited alone, and perplexity tells whether that broke the model."""

    perplexity: PerplexityOptions
    """The text on which perplexity is measured, once per edit: some fifty sentences are enough to detect a collapse."""
    seed: int = 0
    """Seed of the editing."""

    @model_validator(mode="after")
    def _measurable(self) -> ScanConfig:
        refuse_beside_weights(self.methods, what="so that perplexity, which a scan measures, cannot change")
        if self.perplexity.corpus is None:
            raise ValueError("perplexity.corpus: is needed; a scan measures nothing else")
        if self.dataset.order_seed is None:
            raise ValueError("dataset.order_seed: null is no seed; a scan's rows are named by it, so give a number")
        return self


def with_preset(method: Any, model: str) -> Any:
    """A method's fields as given, completed by its preset for the model's name (or the name of its folder)."""
    if isinstance(method, str):
        method = {"method": method}
    if not isinstance(method, dict) or method.get("method") not in tuple(METHODS):
        return method
    presets = METHODS[method["method"]].presets
    preset = presets.get(model) or presets.get(Path(model).name)
    return _completed(method, preset.model_dump(exclude_unset=True)) if preset else method


def _with_covariance(method: Any, covariance: Any) -> Any:
    """A method's fields, with the run's covariance where the method takes one and has none."""
    if isinstance(method, str):
        method = {"method": method}
    known = isinstance(method, dict) and method.get("method") in tuple(METHODS) and isinstance(covariance, dict)
    if not known or "covariance" not in METHODS[method["method"]].config.model_fields:
        return method
    given = method.get("covariance", {})
    return method | {"covariance": _completed(given, covariance) if isinstance(given, dict) else given}


def _completed(given: dict[str, Any], preset: dict[str, Any]) -> dict[str, Any]:
    """What is given, and the preset's value for what is not, in nested fields too."""
    nested = {
        key: _completed(value, preset[key])
        for key, value in given.items()
        if isinstance(value, dict) and isinstance(preset.get(key), dict)
    }
    return preset | given | nested


def _label(method: MethodConfig, methods: tuple[MethodConfig, ...]) -> str:
    label, mine = METHODS[method.method].label, method.model_dump(mode="json")
    others = [other for other in methods if other.method == method.method and other != method]
    differing = sorted(
        {key for other in others for key, value in other.model_dump(mode="json").items() if value != mine[key]}
    )
    shown = mine | {"shards": method.shards, "restraint": method.restraint}
    return f"{label} ({', '.join(f'{key}={shown[key]}' for key in differing)})" if differing else label
