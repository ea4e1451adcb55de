"""The scan: edit the pristine model with each request alone, and find the requests that break it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from prefect import Flow, flow
from prefect.runtime import flow_run

from overedit.flows.config.models import ScanConfig
from overedit.flows.config.preset_files import check_tuned_on
from overedit.flows.config.run_identity import check_names, check_same_configuration, run_of, write_configuration
from overedit.flows.launch import for_plan
from overedit.flows.plan import check_methods, check_requests, edits_of
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.evaluation.perplexity import corpus_texts
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.runs.run import Run, TrajectoryPoint, folder_name
from overedit.tasks.runs.run_lock import run_lock
from overedit.tasks.scan import task
from overedit.tasks.scan.hard_cases import save_hard_cases, scan_line
from overedit.tasks.scan.scan import ScanJob
from overedit.tasks.system.progress import ShowProgress, shown, unseen
from overedit.tasks.system.task_runs import device_tags, in_task

logger = logging.getLogger(__name__)


class MethodScan(NamedTuple):
    """One method over all requests."""

    label: str
    point: TrajectoryPoint
    job: ScanJob


class ScanPlan(NamedTuple):
    """A checked scan."""

    config: ScanConfig
    run: Run
    model: ModelReference
    requests: RequestStore
    """The requests to scan, in order."""
    texts: list[str]
    """On which perplexity is measured."""

    def scans(self) -> Iterator[MethodScan]:
        """One scan per method."""
        config = self.config
        for label, method in zip(config.labels, config.methods, strict=True):
            seed = config.dataset.order_seed or 0
            name = folder_name(label)
            point = TrajectoryPoint(run=self.run, trajectory=name, method=method.method, order_seed=seed, edit_count=1)
            job = ScanJob(model=self.model, method=method, seed=config.seed)
            yield MethodScan(label, point, job)


def make_scan_plan(config: ScanConfig, *, show: ShowProgress = unseen) -> ScanPlan:
    """Read the data, the texts and the model's configuration, and check that all of it fits together.

    Args:
        config: What to scan.
        show: Shows the reading and the checking of the data.

    Raises:
        ValueError: Input does not fit; the message has the key, the value and what is accepted.
    """
    check_names(config)
    run = run_of(config)
    check_same_configuration(run, config)
    model = config.model_reference
    check_methods(model, config.methods)
    requests = edits_of(config, config.dataset.order_seed, show).requests
    check_requests(model, config.methods, requests, asked=())
    if config.tuned_edits in (None, "refuse"):
        check_tuned_on(config.preset_files or (), requests, config.dataset.name)
    return ScanPlan(config, run, model, requests, corpus_texts(config.perplexity))


def scan_title() -> str:
    """The flow run's name in the UI: model, methods, dataset and run."""
    config = ScanConfig.model_validate(flow_run.parameters["config"])
    return f"scan {Path(config.model).name} x {', '.join(config.labels)} x {config.dataset.name} [{config.name}]"


@flow(name="scan", flow_run_name=scan_title, persist_result=False)
def scan(config: ScanConfig, wait: bool = False) -> str:
    """Edit with every request alone, measure perplexity, and save the hard cases as a dataset.

    Parts that are stored are not scanned again: the same call continues a scan that was stopped.

    Args:
        config: What to scan.
        wait: If another process works on the run, wait for its end and then do what is left.

    Returns:
        A line per method: the number of hard cases, and their file.

    Raises:
        ValueError: The configuration does not fit the data or the model; nothing has been written then.
        RuntimeError: Another process works on the run; nothing has been done.
    """
    return run_scan_plan(make_scan_plan(config, show=shown), wait=wait)


def flow_of(plan: ScanPlan) -> Flow[..., str]:
    """The flow `scan` for an existing plan."""
    return for_plan(scan, lambda wait: run_scan_plan(plan, wait=wait))


def run_scan_plan(plan: ScanPlan, *, wait: bool = False) -> str:
    """Scan with every method and save the hard cases; see `scan`."""
    with run_lock(plan.run.folder, wait=wait):
        write_configuration(plan.run, plan.config)
        plan.run.warehouse.set_aside_damaged(plan.run.name)
        lines = []
        for label, point, job in plan.scans():
            in_task(task.scan, job, plan.requests, plan.texts, point, label, name=f"scan {label}", tags=device_tags())
            path = save_hard_cases(point, plan.requests)
            lines.append(scan_line(point, path))
        plan.run.warehouse.publish()
    return "\n".join(lines)
