"""The scan: edit a pristine model with each request alone, and see which of them break it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from overedit.flows.config.models import ScanConfig
from overedit.flows.config.run_identity import (
    check_names,
    check_same_configuration,
    folder_name,
    short_name,
    write_configuration,
)
from overedit.flows.plan import check_corpora, check_model, check_requests
from overedit.flows.prefect_runtime import device_tags, in_task, shown_in_flow
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.evaluation.perplexity import corpus_texts
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.runs.run import Run, TrajectoryPoint
from overedit.tasks.scan.hard_cases import save_hard_cases, scan_line
from overedit.tasks.scan.scan import ScanJob, run_scan
from overedit.tasks.system.locks import run_lock
from overedit.tasks.system.progress import ShowProgress, shown, unseen

logger = logging.getLogger(__name__)


class MethodScan(NamedTuple):
    """One method over all requests."""

    label: str
    place: TrajectoryPoint
    job: ScanJob


class ScanPlan(NamedTuple):
    """A checked scan."""

    config: ScanConfig
    run: Run
    model: ModelReference
    requests: RequestStore
    """Which are scanned, in their order."""
    texts: list[str]
    """On which perplexity is measured."""

    def scans(self) -> Iterator[MethodScan]:
        """One for each method."""
        config = self.config
        for label, method in zip(config.labels, config.methods, strict=True):
            seed = config.dataset.order_seed or 0
            name = folder_name(label)
            place = TrajectoryPoint(run=self.run, trajectory=name, method=method.method, order_seed=seed, edit_count=1)
            job = ScanJob(model=self.model, method=method, seed=config.seed)
            yield MethodScan(label, place, job)


def make_scan_plan(config: ScanConfig, *, show: ShowProgress = unseen) -> ScanPlan:
    """Read the data, the texts and the model's configuration, and check that all of it fits together.

    Args:
        config: What to scan.
        show: Shows the reading and the checking of the data.

    Raises:
        ValueError: What does not fit, with the key, the value and what would be accepted.
    """
    check_names(config)
    run = Run(name=config.name, home=config.home.resolve(), model=short_name(config.model), dataset=config.dataset.name)
    check_same_configuration(run, config)
    model = config.model_reference()
    check_model(model, config.methods)
    check_corpora(model, config.methods)
    with show(f"Reading {config.dataset.path or config.dataset.name}", "edits") as progress:
        requests = load_requests(config.dataset, progress=progress).requests
    check_requests(model, config.methods, requests, asked=())
    return ScanPlan(config, run, model, requests, corpus_texts(config.perplexity))


def scan_title() -> str:
    """The flow run's name in the UI: model, methods, dataset and run."""
    config = ScanConfig.model_validate(flow_run.parameters["config"])
    return f"scan {Path(config.model).name} x {', '.join(config.labels)} x {config.dataset.name} [{config.name}]"


@flow(name="scan", flow_run_name=scan_title, persist_result=False)
def scan(config: ScanConfig, wait: bool = False) -> str:
    """Edit with every request alone, measure perplexity, and save the hard cases as a dataset.

    Parts that are stored already are not scanned again: the same call continues a scan that was stopped.

    Args:
        config: What to scan.
        wait: Where another process works on the run, wait until it has ended, and then do what it has left.

    Returns:
        A line for each method: how many cases are hard, and where they lie.

    Raises:
        ValueError: The configuration does not fit the data or the model; nothing has been written then.
        RuntimeError: Another process works on the run, and nothing has been done.
    """
    plan = make_scan_plan(config, show=shown)
    with run_lock(plan.run.folder, wait=wait):
        write_configuration(plan.run, plan.config)
        plan.run.warehouse.set_aside_damaged(plan.run.name)
        lines = []
        for method_scan in plan.scans():
            in_task(scan_with, plan, method_scan, name=f"scan {method_scan.label}", tags=device_tags())
            path = save_hard_cases(method_scan.place, plan.requests)
            lines.append(scan_line(method_scan.place, path))
        plan.run.warehouse.publish()
    return "\n".join(lines)


@task(cache_policy=NO_CACHE, persist_result=False)
def scan_with(plan: ScanPlan, method_scan: MethodScan) -> None:
    """Scan all requests with one method, and store a row for each."""
    label, place, job = method_scan
    run_scan(job, plan.requests, plan.texts, place, label=label, show=shown_in_flow)
