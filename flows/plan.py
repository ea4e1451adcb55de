"""Makes a plan from a configuration: all input is read and checked before a long job starts or a file is written."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from overedit.editing.durability.linear_layers import linear_weights
from overedit.editing.methods.base import MethodConfig, Progress, silent
from overedit.editing.methods.locate_then_edit.subjects import subject_end
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.trajectory.checkpoint import checkpoint_folder
from overedit.editing.trajectory.runner import check_counts
from overedit.flows.config.models import BenchmarkConfig, EditingConfig, Trajectory
from overedit.flows.config.preset_files import check_tuned_on, without_tuned_on
from overedit.flows.config.run_identity import check_names, check_same_configuration, run_of
from overedit.tasks.data.length_check import check_lengths
from overedit.tasks.data.loader import RequestSet, load_requests
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.durability.texts import tuning_texts
from overedit.tasks.editing_job.covariance_cache import check_covariance
from overedit.tasks.engine.options import check_devices, engine_kind
from overedit.tasks.evaluation.capability.task_loading import TaskLoader
from overedit.tasks.evaluation.measured import MeasuredCheckpoint
from overedit.tasks.evaluation.options import MeasureOptions
from overedit.tasks.evaluation.questions import positions_asked
from overedit.tasks.execution.options import RayExecution, check_installed
from overedit.tasks.models.loading import max_input_tokens
from overedit.tasks.models.placement import check_placement
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.runs.run import BASE, Run, TrajectoryPoint
from overedit.tasks.search.options import SearchOptions
from overedit.tasks.system.gpu_locks import visible_gpus
from overedit.tasks.system.progress import ShowProgress, counted, unseen
from overedit.tasks.system.stage_key import SourceIndex

Rounds: TypeAlias = tuple[tuple[int, ...], ...]
"""Edit counts in the order in which they became known: those that were chosen together are in one tuple."""


class Plan(NamedTuple):
    """A checked run."""

    config: BenchmarkConfig
    run: Run
    requests: dict[int, RequestSet]
    """Order seed -> the requests that will be edited, in their order, and what reading the data found."""
    model: ModelReference
    loader: TaskLoader
    """Keeps the general benchmarks' task objects."""
    sources: SourceIndex
    """Keeps parsed source files, for the stage keys."""
    changed: bool = False
    """Whether the name may have been used with another configuration."""
    search: SearchOptions | None = None
    """The search that chooses the edit counts, with its last one; None where the configuration gives them."""
    can_see: tuple[str, ...] = ()
    """The smallest loss of general ability that the run can detect, one sentence per benchmark."""
    texts: Mapping[str, Sequence[str]] = MappingProxyType({})
    """Each `finetune` operation of `after` -> the texts that it trains on."""

    def planned(self, order_seed: int) -> RequestStore:
        """The requests that will be edited, in their order."""
        return self.requests[order_seed].requests

    def checkpoints_folder(self, trajectory: Trajectory) -> Path:
        """The folder of a trajectory's checkpoints."""
        return self.run.folder / trajectory.name / f"order-{trajectory.order_seed}"

    def measure_options(self, limit: int | None = None) -> MeasureOptions:
        """How each checkpoint is measured; `limit` replaces the most items of each capability task."""
        config = self.config
        more = {} if limit is None else {"limit": limit}
        return MeasureOptions(
            evaluation=config.evaluation,
            perplexity=config.perplexity,
            capability=config.capability.model_copy(update=more),
            engine=config.engine,
        )

    @property
    def last_count(self) -> int:
        """The last edit count that may be measured."""
        if self.search is not None:
            assert self.search.stop is not None
            return self.search.stop
        return given_counts(self.config)[-1]

    def point(self, trajectory: Trajectory, edit_count: int | None = None) -> TrajectoryPoint:
        """A point of a trajectory; its last planned one by default."""
        edit_count = self.last_count if edit_count is None else edit_count
        method = trajectory.job.method.method
        seed = trajectory.order_seed
        return TrajectoryPoint(
            run=self.run, trajectory=trajectory.name, method=method, order_seed=seed, edit_count=edit_count
        )

    def base(self, order_seed: int, rounds: Rounds | None = None) -> MeasuredCheckpoint:
        """The pristine model, to be measured; `rounds` are the edit counts so far where a search chooses them."""
        point = TrajectoryPoint(run=self.run, trajectory=BASE, method="none", order_seed=order_seed, edit_count=0)
        return self._measured(point, None, rounds)

    def measured(self, trajectory: Trajectory, edit_count: int, rounds: Rounds | None = None) -> MeasuredCheckpoint:
        """A checkpoint, to be measured; `rounds` as in `base`."""
        return self._measured(self.point(trajectory, edit_count), self.folder_of(trajectory, edit_count), rounds)

    def folder_of(self, trajectory: Trajectory, edit_count: int) -> Path:
        """The folder of one checkpoint."""
        return checkpoint_folder(self.checkpoints_folder(trajectory), edit_count)

    def _measured(self, point: TrajectoryPoint, folder: Path | None, rounds: Rounds | None) -> MeasuredCheckpoint:
        rounds = rounds or (given_counts(self.config),)
        return MeasuredCheckpoint(
            point=point,
            requests=self.planned(point.order_seed),
            overwritten=self.requests[point.order_seed].report.deduplicated.overwritten,
            edit_counts=tuple(sorted({count for some in rounds for count in some})),
            folder=folder,
            model_digest=self.model.digest,
            sources=self.sources,
            rounds=rounds,
        )


def given_counts(config: BenchmarkConfig) -> tuple[int, ...]:
    """The edit counts that a configuration gives; empty where a search chooses them."""
    return () if isinstance(config.edit_counts, SearchOptions) else config.edit_counts


def edits_of(config: EditingConfig, order_seed: int | None, show: ShowProgress) -> RequestSet:
    """The edits of a run's dataset in one order, without those that its presets were tuned on where these are left out.

    Raises:
        ValueError: As `load_requests`.
    """
    options = config.dataset.model_copy(update={"order_seed": order_seed})
    with show(f"Reading {options.path or options.name}", "edits") as progress:
        found = load_requests(options, progress=progress)
    if config.tuned_edits != "leave_out":
        return found
    return found._replace(requests=without_tuned_on(config.preset_files or (), found.requests, options.name))


def make_plan(config: BenchmarkConfig, *, show: ShowProgress = unseen, changed: bool = False) -> Plan:
    """Read the data and the model's configuration, and check that all of it fits together.

    Args:
        config: What to run.
        show: Shows the progress of reading and checking the data, which takes minutes for millions of edits.
        changed: Accept that the run's name was used with another configuration.

    Raises:
        ValueError: Input does not fit; the message has the key, the value and what is accepted.
    """
    if config.engine.kind == "vllm" and find_spec("vllm") is None:
        raise ValueError("engine.kind: vllm is not installed here; choose auto or transformers")
    if isinstance(config.execution, RayExecution):
        check_installed()
    else:
        check_placement(config.editing)
    check_names(config)
    run = run_of(config)
    if not changed:
        check_same_configuration(run, config)
    model = config.model_reference
    if config.engine.workers > 1 and engine_kind(config.engine) == "vllm" and config.execution.engine == "local":
        check_devices(config.engine, len(visible_gpus()), model.load_config())
    check_methods(model, config.methods)
    requests = {}
    counts, search = given_counts(config), config.search
    asked = set(positions_asked(counts, config.evaluation.sample)) if search is None else None
    for order_seed in config.order_seeds:
        found, report = edits_of(config, order_seed, show)
        if search is not None:
            search = _with_stop(search, len(found))
        else:
            check_counts(counts, len(found))
        planned = found.first(counts[-1] if search is None else search.stop or 0)
        with show("Checking their lengths", "edits") as progress:
            check_requests(model, config.methods, planned, asked=asked, progress=progress)
        if config.tuned_edits in (None, "refuse"):
            check_tuned_on(config.preset_files or (), planned, config.dataset.name)
        requests[order_seed] = RequestSet(planned, report)
    plan = Plan(config, run, requests, model, TaskLoader(config.capability), SourceIndex(), changed, search)
    plan = plan._replace(texts=_texts_after(model, config)) if config.after else plan
    return plan._replace(can_see=_can_see(plan)) if config.capability.asked else plan


def _with_stop(search: SearchOptions, num_requests: int) -> SearchOptions:
    stop = num_requests if search.stop is None else search.stop
    if not search.start <= stop <= num_requests:
        key, value = ("stop", stop) if stop > num_requests else ("start", search.start)
        raise ValueError(f"edit_counts.{key}: {value} is more than the {num_requests} requests that the data holds")
    return search.model_copy(update={"stop": stop})


def _texts_after(model: ModelReference, config: BenchmarkConfig) -> dict[str, list[str]]:
    """The texts of the `finetune` operations; the model's linear layers are checked as well."""
    if any(operation.kind != "merge_base" for operation in config.operations):
        try:
            linear_weights(model_skeleton(model))
        except ValueError as error:
            raise ValueError(f"after: {', '.join(config.after)}: {error}; merge_base is accepted") from error
    corpus = None if config.perplexity.corpus is None else str(config.perplexity.corpus)
    return tuning_texts(config.operations, config.after_finetune, corpus=corpus, num_measured=config.perplexity.limit)


def _can_see(plan: Plan) -> tuple[str, ...]:
    from overedit.tasks.evaluation.power_analysis import before_the_run

    bases = [plan.base(order_seed) for order_seed in plan.config.order_seeds]
    return tuple(before_the_run(bases, plan.measure_options(), plan.loader))


def check_methods(model: ModelReference, methods: tuple[MethodConfig, ...]) -> None:
    """Check that a model has the sites that methods edit, and that their covariances can be read or computed.

    No weights are loaded.

    Raises:
        ValueError: The family is unknown, a site does not exist, or the corpus or file of a covariance cannot be read
            or is of another model; the message has the key and the value.
    """
    anatomy = anatomy_of(model)
    for method in methods:
        for site in method.sites:
            anatomy.site_parameters(site)
        options = method.covariance_options
        if options is not None:
            check_covariance(options, method.covariances, model_digest=model.digest)


def anatomy_of(model: ModelReference) -> Anatomy:
    """The names of a model's parts; no weights are loaded.

    Raises:
        ValueError: The family is unknown, or the configuration describes no model that can be built.
    """
    return Anatomy.of(model_skeleton(model))


def model_skeleton(model: ModelReference) -> PreTrainedModel:
    """The model without weights, on the meta device."""
    config = model.load_config()
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (TypeError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"model: the config.json of {model.name} describes no model that can be built: {reason}"
        ) from error


def check_requests(
    model: ModelReference,
    methods: tuple[MethodConfig, ...],
    requests: RequestStore,
    *,
    asked: Container[int] | None = None,
    progress: Progress = silent,
) -> None:
    """Check that requests have what the methods need and fit into the model's context.

    Args:
        model: The model, for its tokenizer and context length.
        methods: Their configurations.
        requests: In the order of editing.
        asked: Positions of the requests whose probes are asked, and therefore checked; None for all.
        progress: Called with (requests checked, total requests).

    Raises:
        ValueError: A request does not; the message has the case id of the first.
    """
    for method in methods:
        if method.needs_subject:
            _check_subjects(method.method, requests)
    tokenizer = AutoTokenizer.from_pretrained(model.locate(), revision=model.revision, trust_remote_code=False)
    watched = counted(requests, progress, len(requests))
    check_lengths(watched, tokenizer, max_input_tokens(model.load_config()), asked=asked)


def _check_subjects(method: str, requests: RequestStore) -> None:
    for request in requests:
        if request.subject is None:
            raise ValueError(f"methods: {method} needs subjects, and case {request.case_id} has none")
        try:
            subject_end(request)
        except ValueError as error:
            raise ValueError(f"methods: {method}: {error}") from None
