"""The benchmark: edit a model along several trajectories, stop at chosen edit counts, and measure what broke."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from prefect import Flow, flow
from prefect.runtime import flow_run

from overedit.editing.storage.checksums import digest
from overedit.flows.config.loading import validated
from overedit.flows.config.models import BenchmarkConfig, Trajectory
from overedit.flows.config.run_identity import write_configuration
from overedit.flows.durability import measure_durability
from overedit.flows.launch import execute, for_plan
from overedit.flows.many_devices import run_on_many_devices
from overedit.flows.plan import Plan, make_plan
from overedit.flows.trajectories import TrajectoryState, run_trajectories
from overedit.tasks.engine.lazy import LazyEngine
from overedit.tasks.engine.options import engine_kind
from overedit.tasks.execution.options import RayExecution
from overedit.tasks.report.comparison.task import compare_with_baseline, failures_text
from overedit.tasks.report.task import publish
from overedit.tasks.runs.completion import write_completion
from overedit.tasks.runs.instances import Instance, accept, baseline_of, begin, shown_changes
from overedit.tasks.runs.records import store_engine_starts, store_requests, store_run
from overedit.tasks.runs.run import Run
from overedit.tasks.runs.run_lock import check_run_is_free, run_lock
from overedit.tasks.storage.working_copy import shown_path
from overedit.tasks.system.progress import shown
from overedit.tasks.system.task_runs import in_task
from overedit.tasks.system.untrusted import one_line

logger = logging.getLogger(__name__)


def run_title() -> str:
    """The flow run's name in the UI: model, methods, dataset and run."""
    config = BenchmarkConfig.model_validate(flow_run.parameters["config"])
    return f"{Path(config.model).name} x {', '.join(config.labels)} x {config.dataset.name} [{config.name}]"


@flow(name="benchmark", flow_run_name=run_title, persist_result=False)
def benchmark(config: BenchmarkConfig, wait: bool = False) -> str:
    """Edit along every trajectory, measure every checkpoint, publish.

    A stage whose result exists, made from the same inputs by the same code, is not run again: the same call continues
    a run that was stopped, and changes nothing in a complete one.

    Args:
        config: What to run.
        wait: If another process works on the run, wait for its end and then do what is left.

    Returns:
        The path or URL of the report page.

    Raises:
        ValueError: The configuration does not fit the data or the model; nothing has been written then.
        RuntimeError: A trajectory failed (the others are complete; the table `runs` has the error), or another process
            works on the run and nothing has been done.
    """
    return shown_path(run_alone(make_plan(config, show=shown), wait=wait).run.report)


def flow_of(plan: Plan, *, requested_by: str = "python") -> Flow[..., str]:
    """The flow `benchmark` for an existing plan."""
    return for_plan(
        benchmark, lambda wait: shown_path(run_alone(plan, wait=wait, requested_by=requested_by).run.report)
    )


class GateFailedError(RuntimeError):
    """The run is complete, and a number fell below the baseline by more than the gate tolerates.

    Args:
        message: The numbers.
        instance: The instance, which is complete.
    """

    def __init__(self, message: str, instance: Instance) -> None:
        super().__init__(message)
        self.instance = instance


def run_alone(plan: Plan, *, wait: bool, requested_by: str = "python") -> Instance:
    """Run a plan as the only process that works on the run, and record the instance.

    Args:
        plan: The checked run.
        wait: If another process works on the run, wait for its end.
        requested_by: Who asked for it, in words.

    Raises:
        GateFailedError: The gate of the configuration failed.
        RuntimeError: A trajectory failed, or another process works on the run.
    """
    with run_lock(plan.run.folder, wait=wait):
        return run_plan(plan, requested_by=requested_by)


class Finished(NamedTuple):
    """A completed run."""

    run: Run
    server_is_lost: bool
    """Prefect's server stopped answering; at exit, Prefect would retry the report of every task for seconds."""


def run_benchmark(
    content: Mapping[str, Any], *, where: str, wait: bool = False, changed: bool = False, requested_by: str = "python"
) -> Finished:
    """Run a benchmark, or continue it; bad input is an error before a server starts.

    Args:
        content: The keys of a configuration.
        where: The name of the configuration in error messages.
        wait: If another process works on the run, wait for its end.
        changed: Accept that the name was used with another configuration.
        requested_by: Who asked for it, in words.

    Raises:
        ValueError: The configuration does not fit.
        RuntimeError: A trajectory or the gate failed, or another process works on the run.
    """
    config = validated(BenchmarkConfig, dict(content), where=where)
    plan = make_plan(config, show=shown, changed=changed)
    if not wait:
        check_run_is_free(plan.run.folder)
    _, server_is_lost = execute(flow_of(plan, requested_by=requested_by), config, wait=wait)
    if config.is_local:
        write_completion(plan.run, content)
    return Finished(plan.run, server_is_lost)


def run_plan(plan: Plan, *, requested_by: str = "python") -> Instance:
    """Edit, measure and publish; see `run_alone`. The caller holds the run's lock."""
    write_configuration(plan.run, plan.config, changed=plan.changed)
    plan.run.warehouse.rename_old_files(plan.run.name)
    plan.run.warehouse.set_aside_damaged(plan.run.name)
    instance = begin(
        plan.run,
        config=plan.config.model_dump_json(),
        model_digest=plan.model.digest,
        requests_digest=digest([requests.requests.digest for requests in plan.requests.values()]),
        requested_by=requested_by,
        flow_run_id=flow_run.id,
    )
    for sentence in (*plan.can_see, *filter(None, [shown_changes(instance.row)])):
        logger.info(sentence)
    try:
        end_instance(plan, instance, edit_and_measure(plan, instance))
    except BaseException as error:  # KeyboardInterrupt too: the instance has to say how it ended
        if instance.row["ended_at"] is None:
            with suppress(OSError):  # a full disk must not hide the error
                instance.store_files(all_done=False)
                status = "failed" if isinstance(error, Exception) else "stopped"
                instance.store(status=status, error=one_line(error))
        raise
    return instance


def edit_and_measure(plan: Plan, instance: Instance) -> dict[Trajectory, str]:
    """Run every stage whose result is not stored; the errors of trajectories that failed."""
    if isinstance(plan.config.execution, RayExecution):
        states, starts = run_on_many_devices(plan, plan.config.execution)
    else:
        with LazyEngine(plan.model, plan.config.engine) as engine:
            states, rounds = run_trajectories(plan, engine)
            measure_durability(plan, states, rounds, engine)
        starts = engine.starts
    base_point = plan.base(plan.config.order_seeds[0]).point
    store_engine_starts(base_point, starts, continues=instance.continues)
    store_results_of_run(plan, states, instance.row["started_at"])
    return {state.trajectory: state.error for state in states if state.error}


def end_instance(plan: Plan, instance: Instance, failed: dict[Trajectory, str]) -> None:
    """Compare the instance with the baseline, store how it ended, and publish.

    Raises:
        GateFailedError: A number fails the gate.
        RuntimeError: A trajectory failed.
    """
    instance.store_files(all_done=True)
    in_task(compare_with_baseline, instance, plan.config.gate, name="compare with the baseline")
    error = "; ".join(f"{trajectory.label} failed: {error}" for trajectory, error in failed.items())
    instance.store(ended_at=datetime.now(UTC), status="failed" if failed else "completed", error=error or None)
    if not failed and baseline_of(plan.run.warehouse, plan.run.name) is None:
        accept(plan.run.warehouse, plan.run.name, instance.name, note="the first complete instance", by="Overedit")
    if not instance.row["num_computed"]:
        logger.info("run %r was complete: nothing was edited or measured again", plan.run.name)
    logger.info("run %r: %s", plan.run.name, instance.row["verdict"])
    in_task(publish, plan.run, name="publish")
    if failed:
        raise RuntimeError(error)
    if instance.row["gate"] == "failed":
        raise GateFailedError(f"the gate failed: {failures_text(instance)}", instance)


def store_results_of_run(plan: Plan, states: Sequence[TrajectoryState], started_at: datetime) -> None:
    """Store the requests, and the status of each trajectory."""
    for order_seed in plan.config.order_seeds:
        base = plan.base(order_seed)
        store_requests(base.point, base.requests, digest_of_requests=base.requests.digest, overwritten=base.overwritten)
    for state in states:
        trajectory = state.trajectory
        last = plan.last_count if plan.search is None else max(state.measured, default=plan.last_count)
        store_run(
            plan.point(trajectory, last),
            label=trajectory.label,
            method_config=trajectory.job.method.model_dump_json(),
            config=plan.config.model_dump_json(),
            model_digest=plan.model.digest,
            engine=engine_kind(plan.config.engine),
            error=state.error,
            started_at=started_at,
        )
