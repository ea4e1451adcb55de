"""From a configuration to a plan: everything is read and checked here, before anything long starts or is written."""

from __future__ import annotations

from collections.abc import Container
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from overedit.editing.methods.base import MethodConfig, Progress, silent
from overedit.editing.methods.locate_then_edit.subjects import subject_end
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.trajectory.checkpoint import checkpoint_folder
from overedit.editing.trajectory.runner import check_counts
from overedit.flows.config.models import BenchmarkConfig, Trajectory
from overedit.flows.config.run_identity import check_names, check_same_configuration
from overedit.tasks.data.length_check import check_lengths
from overedit.tasks.data.loader import RequestSet, load_requests
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.editing_job.covariance_cache import check_covariance
from overedit.tasks.editing_job.parallel import QueuedJob
from overedit.tasks.evaluation.capability.task_loading import TaskLoader
from overedit.tasks.evaluation.evaluator import MeasuredCheckpoint
from overedit.tasks.evaluation.options import MeasureOptions
from overedit.tasks.evaluation.questions import positions_asked
from overedit.tasks.models.loading import context_length
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.runs.run import BASE, Run, TrajectoryPoint, short_name
from overedit.tasks.system.progress import ShowProgress, counted, unseen
from overedit.tasks.system.stage_key import SourceIndex


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
    can_see: tuple[str, ...] = ()
    """What losses of general ability the run will be able to see, in sentences."""

    def planned(self, order_seed: int) -> RequestStore:
        """The requests that will be edited, in their order."""
        return self.requests[order_seed].requests

    def checkpoints_folder(self, trajectory: Trajectory) -> Path:
        """Where a trajectory's checkpoints lie."""
        return self.run.folder / trajectory.name / f"order-{trajectory.order_seed}"

    def measure_options(self) -> MeasureOptions:
        """How each checkpoint is measured."""
        config = self.config
        return MeasureOptions(
            evaluation=config.evaluation,
            perplexity=config.perplexity,
            capability=config.capability,
            engine=config.engine,
        )

    def queued_jobs(self) -> list[QueuedJob]:
        """One for each trajectory, for processes that read their own requests."""
        several = len(self.config.order_seeds) > 1
        return [
            QueuedJob(
                trajectory.job,
                self.config.dataset.model_copy(update={"order_seed": trajectory.order_seed}),
                self.planned(trajectory.order_seed),
                self.checkpoints_folder(trajectory),
                f"Editing with {trajectory.label}" + (f", order {trajectory.order_seed}" if several else ""),
            )
            for trajectory in self.config.trajectories()
        ]

    def point(self, trajectory: Trajectory, edit_count: int | None = None) -> TrajectoryPoint:
        """A point of a trajectory; its last planned one by default."""
        edit_count = self.config.edit_counts[-1] if edit_count is None else edit_count
        method = trajectory.job.method.method
        seed = trajectory.order_seed
        return TrajectoryPoint(
            run=self.run, trajectory=trajectory.name, method=method, order_seed=seed, edit_count=edit_count
        )

    def base(self, order_seed: int) -> MeasuredCheckpoint:
        """The pristine model, to be measured."""
        point = TrajectoryPoint(run=self.run, trajectory=BASE, method="none", order_seed=order_seed, edit_count=0)
        return self._measured(point, None)

    def measured(self, trajectory: Trajectory, edit_count: int) -> MeasuredCheckpoint:
        """A checkpoint, to be measured."""
        folder = checkpoint_folder(self.checkpoints_folder(trajectory), edit_count)
        return self._measured(self.point(trajectory, edit_count), folder)

    def _measured(self, point: TrajectoryPoint, folder: Path | None) -> MeasuredCheckpoint:
        return MeasuredCheckpoint(
            point=point,
            requests=self.planned(point.order_seed),
            overwritten=self.requests[point.order_seed].report.deduplicated.overwritten,
            edit_counts=self.config.edit_counts,
            folder=folder,
            model_digest=self.model.digest,
            sources=self.sources,
        )


def make_plan(config: BenchmarkConfig, *, show: ShowProgress = unseen) -> Plan:
    """Read the data and the model's configuration, and check that all of it fits together.

    Args:
        config: What to run.
        show: Shows the reading and the checking of the data, which takes minutes where it is millions of edits.

    Raises:
        ValueError: What does not fit, with the key, the value and what would be accepted.
    """
    if config.engine.kind == "vllm" and find_spec("vllm") is None:
        raise ValueError("engine.kind: vllm is not installed here; choose auto or transformers")
    check_names(config)
    run = Run(name=config.name, home=config.home.resolve(), model=short_name(config.model), dataset=config.dataset.name)
    check_same_configuration(run, config)
    model = config.model_reference
    check_model(model, config.methods)
    check_corpora(model, config.methods)
    requests = {}
    asked = set(positions_asked(config.edit_counts, config.evaluation.sample))
    for order_seed in config.order_seeds:
        options = config.dataset.model_copy(update={"order_seed": order_seed})
        with show(f"Reading {options.path or options.name}", "edits") as progress:
            found, report = load_requests(options, progress=progress)
        check_counts(config.edit_counts, len(found))
        planned = found.first(config.edit_counts[-1])
        with show("Checking their lengths", "edits") as progress:
            check_requests(model, config.methods, planned, asked=asked, progress=progress)
        requests[order_seed] = RequestSet(planned, report)
    plan = Plan(config, run, requests, model, TaskLoader(config.capability), SourceIndex())
    return plan._replace(can_see=_can_see(plan)) if config.capability.asked else plan


def _can_see(plan: Plan) -> tuple[str, ...]:
    from overedit.tasks.evaluation.power_analysis import before_the_run

    bases = [plan.base(order_seed) for order_seed in plan.config.order_seeds]
    return tuple(before_the_run(bases, plan.measure_options(), plan.loader))


def check_model(model: ModelReference, methods: tuple[MethodConfig, ...]) -> None:
    """Check that a model is of a known family and has the sites that methods edit; no weights are loaded.

    Raises:
        ValueError: It is not, or has not.
    """
    config = model.load_config()
    try:
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (TypeError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"model: the config.json of {model.name} describes no model that can be built: {reason}"
        ) from error
    anatomy = Anatomy.of(skeleton)
    for method in methods:
        for site in method.sites:
            anatomy.site_parameters(site)


def check_corpora(model: ModelReference, methods: tuple[MethodConfig, ...]) -> None:
    """Check that the texts, or the files, from which methods learn what the model's keys are can be read.

    Raises:
        ValueError: They cannot, or are of another model, with the key and the value.
    """
    for method in methods:
        options = method.covariance_options
        if options is not None:
            check_covariance(options, method.sites, model_digest=model.digest)


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
        model: Whose tokenizer and context length count.
        methods: Their configurations.
        requests: In the order of editing.
        asked: Positions of the requests whose probes will be asked, and are checked; all where not given.
        progress: Told (requests checked, requests in all).

    Raises:
        ValueError: The first request that does not, by its case id.
    """
    for method in methods:
        if method.needs_subject:
            _check_subjects(method.method, requests)
    tokenizer = AutoTokenizer.from_pretrained(model.locate(), revision=model.revision, trust_remote_code=False)
    watched = counted(requests, progress, len(requests))
    check_lengths(watched, tokenizer, context_length(model.load_config()), asked=asked)


def _check_subjects(method: str, requests: RequestStore) -> None:
    for request in requests:
        if request.subject is None:
            raise ValueError(f"methods: {method} needs subjects, and case {request.case_id} has none")
        try:
            subject_end(request)
        except ValueError as error:
            raise ValueError(f"methods: {method}: {error}") from None
