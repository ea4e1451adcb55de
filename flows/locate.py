"""The search among sites: edit at each site of a model, measure, rank the sites, and propose one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from prefect import Flow, flow
from prefect.runtime import flow_run

from overedit.editing.metrics import prompt_key
from overedit.editing.requests import EditRequest
from overedit.flows.config.loading import named_content, validated
from overedit.flows.config.locate import LocateConfig
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.config.run_identity import check_same_configuration, run_of, write_configuration
from overedit.flows.launch import for_plan
from overedit.flows.plan import anatomy_of, check_methods, check_requests, edits_of, given_counts
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.evaluation.capability.task_loading import TaskLoader
from overedit.tasks.evaluation.perplexity import corpus_texts
from overedit.tasks.locate import task
from overedit.tasks.locate.heat_maps import save_picture
from overedit.tasks.locate.options import candidates
from overedit.tasks.locate.page import write_sites_page
from overedit.tasks.locate.ranking import Ranking, best_sites, ranking_of
from overedit.tasks.locate.sweep import Split
from overedit.tasks.runs.run import Run
from overedit.tasks.runs.run_lock import run_lock
from overedit.tasks.storage.working_copy import shown_path
from overedit.tasks.system.progress import ShowProgress, shown, unseen
from overedit.tasks.system.task_runs import device_tags, in_task


class LocatePlan(NamedTuple):
    """A checked search among sites."""

    config: LocateConfig
    run: Run
    sites: tuple[str, ...]
    """The candidates, layer by layer."""
    validation: Split
    test: Split
    """Without requests where no test edits are asked for."""
    loader: TaskLoader
    """Keeps the general benchmarks' task objects."""

    @property
    def page(self) -> Path:
        """The page of the heat maps."""
        return self.run.home / "reports" / f"{self.run.name}.locate.html"

    def rankings(self) -> list[Ranking]:
        """The ranking under each protocol, the proposing one first."""
        return [ranking_of(self.run, protocol) for protocol in self.config.evaluation.protocols]


def make_locate_plan(config: LocateConfig, *, show: ShowProgress = unseen) -> LocatePlan:
    """Read the data and the model's configuration, and check that all of it fits together.

    Args:
        config: What to search.
        show: Shows the reading and the checking of the data.

    Raises:
        ValueError: Input does not fit; the message has the key, the value and what is accepted.
    """
    run = run_of(config)
    check_same_configuration(run, config)
    (method,) = config.methods
    sites = candidates(config.sites, anatomy_of(config.model_reference), method)
    check_methods(config.model_reference, tuple(method.at_site(site) for site in sites))
    needed = config.edits + config.test_edits
    chosen = list(islice(_distinct(config, show), needed))
    if len(chosen) < needed:
        raise ValueError(_too_few(config, len(chosen)))
    texts = corpus_texts(config.perplexity)
    stores = RequestStore(chosen[: config.edits]), RequestStore(chosen[config.edits :])
    check_requests(config.model_reference, config.methods, RequestStore(chosen))
    loader = TaskLoader(config.capability)
    if config.capability.asked:
        loader.load()
    return LocatePlan(
        config, run, sites, Split("validation", stores[0], texts), Split("test", stores[1], texts), loader
    )


def _distinct(config: LocateConfig, show: ShowProgress) -> Iterator[EditRequest]:
    """The dataset's edits in their order, one per prompt, without those of the benchmark to keep apart from."""
    seen = _prompts_of(config.not_in, show) if config.not_in is not None else set()
    with show(f"Reading {config.dataset.path or config.dataset.name}", "edits") as progress:
        requests = load_requests(config.dataset, progress=progress).requests
    for request in requests:
        key = prompt_key(request.prompt)
        if key not in seen:
            seen.add(key)
            yield request


def _prompts_of(benchmark: str, show: ShowProgress) -> set[str]:
    """The prompts that a benchmark edits, under all of its orders."""
    content, where = named_content(benchmark)
    config = validated(BenchmarkConfig, content, where=f"not_in: {where}")
    found: set[str] = set()
    for order_seed in config.order_seeds:
        requests = edits_of(config, order_seed, show).requests
        counts, search = given_counts(config), config.search
        last = counts[-1] if search is None else search.stop or len(requests)
        found |= {prompt_key(request.prompt) for request in requests.first(last)}
    return found


def _too_few(config: LocateConfig, found: int) -> str:
    where: str = config.dataset.name
    if config.dataset.limit is not None:
        where += f" with dataset.limit: {config.dataset.limit}"
    if config.not_in is not None:
        where += f" without the edits of not_in: {config.not_in}"
    needed = f"edits: {config.edits} and test_edits: {config.test_edits}"
    return f"{needed} are more than the {found} distinct prompts of {where}; accepted: {found} together"


def locate_title() -> str:
    """The flow run's name in the UI: model, method, dataset and run."""
    config = LocateConfig.model_validate(flow_run.parameters["config"])
    return f"locate {Path(config.model).name} x {config.labels[0]} x {config.dataset.name} [{config.name}]"


@flow(name="locate", flow_run_name=locate_title, persist_result=False)
def locate(config: LocateConfig, wait: bool = False) -> str:
    """Edit at every site, measure, rank the sites, and write the heat maps.

    Sites that are stored are not measured again: the same call continues a search that was stopped.

    Args:
        config: What to search.
        wait: If another process works on the run, wait for its end and then do what is left.

    Returns:
        The page of the heat maps.

    Raises:
        ValueError: The configuration does not fit the data or the model; nothing has been written then.
        RuntimeError: Another process works on the run; nothing has been done.
    """
    return run_locate_plan(make_locate_plan(config, show=shown), wait=wait)


def flow_of(plan: LocatePlan) -> Flow[..., str]:
    """The flow `locate` for an existing plan."""
    return for_plan(locate, lambda wait: run_locate_plan(plan, wait=wait))


def run_locate_plan(plan: LocatePlan, *, wait: bool = False) -> str:
    """Measure all sites, then the best ones on the test edits, and write the heat maps; see `locate`."""
    config, run = plan.config, plan.run
    with run_lock(run.folder, wait=wait):
        write_configuration(run, config)
        run.warehouse.set_aside_damaged(run.name)
        _sweep(plan, plan.sites, plan.validation)
        if config.test_edits:
            count = len(plan.sites) if config.test_sites == "all" else config.test_sites
            _sweep(plan, best_sites(run, config.evaluation.protocols[0], count), plan.test)
        run.warehouse.publish()
        rankings = plan.rankings()
        write_sites_page(rankings, plan.page)
        if rankings[0].proposed is not None:
            save_picture(rankings[0], plan.page.with_suffix(".png"))
    return shown_path(plan.page)


def _sweep(plan: LocatePlan, sites: tuple[str, ...], split: Split) -> None:
    job, label = plan.config.job(sites), plan.config.labels[0]
    in_task(
        task.sweep, job, split, plan.run, label, plan.loader, name=f"locate {label}, {split.name}", tags=device_tags()
    )
