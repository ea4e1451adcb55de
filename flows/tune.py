"""The search for settings: every method gets the same budget on validation edits, and its best is tested once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from prefect import Flow, flow
from prefect.runtime import flow_run

from overedit.editing.methods.base import MethodConfig
from overedit.editing.requests import EditRequest
from overedit.editing.storage.checksums import digest
from overedit.flows.config.loading import named_content, validated
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.config.run_identity import check_names, check_same_configuration, run_of, write_configuration
from overedit.flows.config.tuning import TuneConfig
from overedit.flows.launch import for_plan
from overedit.flows.plan import check_methods, check_requests, edits_of, given_counts
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.evaluation.perplexity import corpus_texts
from overedit.tasks.report.tuning import chosen_rows, write_tuning_report
from overedit.tasks.runs.run import Run, folder_name
from overedit.tasks.runs.run_lock import run_lock
from overedit.tasks.system.gpu_locks import gpu_lock
from overedit.tasks.system.progress import ShowProgress, shown, unseen
from overedit.tasks.system.task_runs import device_tags, in_task
from overedit.tasks.tune import task
from overedit.tasks.tune.bench import Bench
from overedit.tasks.tune.leakage import about, among, edit_marks, marks_of, not_about, not_among, shown_cases
from overedit.tasks.tune.objective import OBJECTIVE
from overedit.tasks.tune.preset_file import Provenance, write_preset, write_trials
from overedit.tasks.tune.search import Place, Tuned
from overedit.tasks.tune.settings import check_ranges


class TunePlan(NamedTuple):
    """A checked search."""

    config: TuneConfig
    run: Run
    validation: tuple[EditRequest, ...]
    """The edits that the search sees."""
    test: tuple[EditRequest, ...]
    """The edits on which the chosen settings are measured once."""
    texts: list[str]
    """On which perplexity is measured."""
    out: Path
    """The folder of the preset files."""
    changed: bool = False
    """Whether the name may have been used with another configuration."""

    def places(self) -> Iterator[tuple[Place, MethodConfig]]:
        """Each method, and where its rows are stored."""
        for label, method in zip(self.config.labels, self.config.methods, strict=True):
            yield Place(run=self.run, trajectory=folder_name(label), label=label, method=method.method), method

    @property
    def bench(self) -> Bench:
        """Measures the trials; the model is loaded when the first one is measured."""
        edits = {"validation": self.validation, "test": self.test}
        return Bench(self.config.model_reference, self.config.judging, self.texts, edits)  # type: ignore[arg-type]


def make_tune_plan(
    config: TuneConfig, *, out: Path | None = None, show: ShowProgress = unseen, changed: bool = False
) -> TunePlan:
    """Read the data and the model's configuration, and check that all of it fits together.

    Args:
        config: What to search.
        out: The folder of the preset files; `<home>/presets/<name>` if not given.
        show: Shows the reading of the data.
        changed: Accept that the name was used with another configuration.

    Raises:
        ValueError: Input does not fit, or validation edits are edits of a benchmark; the message has the key, the value
            and what is accepted.
    """
    check_names(config)
    run = run_of(config)
    if not changed:
        check_same_configuration(run, config)
    candidates = [each for method in config.methods for each in check_ranges(method, config.ranges_of(method))]
    by_inputs = {(each.covariances, str(each.covariance_options)): each for each in (*config.methods, *candidates)}
    check_methods(config.model_reference, tuple(by_inputs.values()))
    with show(f"Reading {config.dataset.path or config.dataset.name}", "edits") as progress:
        after_skip = load_requests(config.dataset, progress=progress).requests[config.skip :]
    benchmarks = [_benchmark_edits(name, show) for name in config.not_in]
    validation = disjoint(config, after_skip, benchmarks)
    subjects = marks_of(validation, config.dataset.name).subjects
    test = tuple(not_about(benchmarks[0].requests, subjects))
    _check_enough(config, validation, test)
    for edits in (validation, test):
        check_requests(config.model_reference, config.methods, RequestStore(edits))
    folder = out or run.home / "presets" / run.name
    return TunePlan(config, run, validation, test, corpus_texts(config.perplexity), folder, changed)


class BenchmarkEdits(NamedTuple):
    """The edits of a benchmark."""

    name: str
    dataset: str
    requests: list[EditRequest]
    """Those of all orders."""


def _benchmark_edits(name: str, show: ShowProgress) -> BenchmarkEdits:
    content, where = named_content(name)
    config = validated(BenchmarkConfig, content, where=f"not_in: {where}")
    requests: dict[str, EditRequest] = {}
    for order_seed in config.order_seeds:
        found = edits_of(config, order_seed, show).requests
        planned = found.first(given_counts(config)[-1]) if given_counts(config) else found
        requests |= {digest(edit_marks(each, config.dataset.name)): each for each in planned}
    return BenchmarkEdits(name, config.dataset.name, list(requests.values()))


def disjoint(
    config: TuneConfig, validation: Sequence[EditRequest], benchmarks: Sequence[BenchmarkEdits]
) -> tuple[EditRequest, ...]:
    """The validation edits that are no edits of a benchmark, nor about a subject of one unless that is accepted.

    Raises:
        ValueError: One is, and such edits are not to be left out; the message has the cases.
    """
    accepted = "accepted: other edits, by skip, dataset.order_seed or dataset.path"
    left, dataset = list(validation), config.dataset.name
    for benchmark in benchmarks:
        marks = marks_of(benchmark.requests, benchmark.dataset)
        same = among(left, dataset, marks.edits)
        if same and config.shared_edits == "refuse":
            raise ValueError(
                f"dataset: {shown_cases(same)} of the {len(validation):,} validation edits (skip: {config.skip}) are "
                f"edits of {benchmark.name} (not_in), whose results would flatter the settings; {accepted}, or "
                "shared_edits: leave_out"
            )
        left = not_among(left, dataset, marks.edits)
        if config.shared_subjects == "accept":
            continue
        shared = about(left, marks.subjects)
        if shared and config.shared_subjects == "refuse":
            raise ValueError(
                f"shared_subjects: refuse, but {shown_cases(shared)} of the {len(validation):,} validation edits are "
                f"about subjects that {benchmark.name} (not_in) edits; {accepted}, or shared_subjects: accept or "
                "leave_out"
            )
        left = not_about(left, marks.subjects)
    return tuple(left)


def _check_enough(config: TuneConfig, validation: tuple[EditRequest, ...], test: tuple[EditRequest, ...]) -> None:
    last = config.edit_counts[-1]
    if len(validation) < last:
        raise ValueError(
            f"edit_counts: {last} is more than the {len(validation)} validation edits: those after skip that no "
            "benchmark has"
        )
    if len(test) < last:
        raise ValueError(
            f"edit_counts: {last} is more than the {len(test)} test edits: those of {config.not_in[0]} about no "
            "subject of the validation edits"
        )


def tune_title() -> str:
    """The flow run's name in the UI: model, methods, dataset and run."""
    config = TuneConfig.model_validate(flow_run.parameters["config"])
    return f"tune {Path(config.model).name} x {', '.join(config.labels)} x {config.dataset.name} [{config.name}]"


@flow(name="tune", flow_run_name=tune_title, persist_result=False)
def tune(config: TuneConfig, wait: bool = False) -> str:
    """Search the settings of every method, measure the best on test edits, and write preset files and the report.

    Args:
        config: What to search.
        wait: If another process works on the run, wait for its end and then do what is left.

    Returns:
        The path of the report page.

    Raises:
        ValueError: The configuration does not fit the data or the model; nothing has been written then.
        RuntimeError: Another process works on the run, or no trial of a method was completed.
    """
    return run_tune_plan(make_tune_plan(config, show=shown), wait=wait)


def flow_of(plan: TunePlan) -> Flow[..., str]:
    """The flow `tune` for an existing plan."""
    return for_plan(tune, lambda wait: run_tune_plan(plan, wait=wait))


def run_tune_plan(plan: TunePlan, *, wait: bool = False) -> str:
    """Search with every method and write what was found; see `tune`."""
    run, bench = plan.run, plan.bench
    with run_lock(run.folder, wait=wait):
        write_configuration(run, plan.config, changed=plan.changed)
        run.warehouse.set_aside_damaged(run.name)
        found = {}
        with gpu_lock():
            for place, method in plan.places():
                job = plan.config.job(method)
                found[place] = in_task(task.tune, job, bench, place, name=f"tune {place.label}", tags=device_tags())
        run.warehouse.keep_only(run.name, run.files.computed.keys() | run.files.shared.keys())
        run.warehouse.publish()
        write_presets(plan, found)
        return str(write_tuning_report(run))


def write_presets(plan: TunePlan, found: dict[Place, Tuned]) -> None:
    """Write a preset file for each method, and the trials beside them."""
    config, model = plan.config, plan.config.model_reference
    marks = sorted({mark for each in plan.validation for mark in edit_marks(each, config.dataset.name)})
    values = {row["trajectory"]: row for row in chosen_rows(plan.run)}
    for place, tuned in found.items():
        provenance = Provenance(
            run=plan.run.name,
            trajectory=place.trajectory,
            study=tuned.study,
            trial=tuned.trial,
            model=config.model,
            model_digest=model.digest,
            dataset=config.dataset.name,
            objective=OBJECTIVE,
            trials=config.budget.trials,
            seed=config.seed,
            seeds=config.seeds,
            edit_counts=config.edit_counts,
            turn_size=config.turn_size,
            validation=values[place.trajectory]["validation" if tuned.trial is not None else "given_validation"],
            test=values[place.trajectory]["test" if tuned.trial is not None else "given_test"],
            edits=digest(marks),
        )
        write_preset(plan.out / f"{place.trajectory}.yaml", tuned.config, provenance, marks)
    write_trials(plan.run, plan.out)
