"""The benchmark: edit a model along several trajectories, stop at chosen edit counts, and measure what broke."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from overedit.editing.trajectory.checkpoint import Checkpoint
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.config.run_identity import write_configuration
from overedit.flows.parallel_editing import edit_in_processes
from overedit.flows.plan import Plan, Trajectory, make_plan
from overedit.flows.prefect_runtime import (
    device_tags,
    in_task,
    is_input_output,
    lines_in_flow,
    publish,
    shown_in_flow,
)
from overedit.tasks.editing_job.job import run_editing_job, written_checkpoints
from overedit.tasks.engine.lazy import LazyEngine
from overedit.tasks.engine.options import engine_kind
from overedit.tasks.evaluation.evaluator import MeasuredCheckpoint, measure
from overedit.tasks.runs.records import store_checkpoint, store_engine_starts, store_requests, store_run
from overedit.tasks.system.locks import run_lock
from overedit.tasks.system.progress import shown
from overedit.tasks.system.untrusted import one_line

logger = logging.getLogger(__name__)


def run_title() -> str:
    """The flow run's name in the UI: model, methods, dataset and run."""
    config = BenchmarkConfig.model_validate(flow_run.parameters["config"])
    return f"{Path(config.model).name} x {', '.join(config.labels)} x {config.dataset.name} [{config.name}]"


@flow(name="benchmark", flow_run_name=run_title, persist_result=False)
def benchmark(config: BenchmarkConfig, wait: bool = False) -> str:
    """Edit along every trajectory, measure every checkpoint, publish.

    A stage whose result is there already, made from the same inputs by the same code, is not run again: the same call
    continues a run that was stopped, and does nothing to one that is complete.

    Args:
        config: What to run.
        wait: Where another process works on the run, wait until it has ended, and then do what it has left.

    Returns:
        Where the report page lies.

    Raises:
        ValueError: The configuration does not fit the data or the model; nothing has been written then.
        RuntimeError: A trajectory failed; the others are complete, and its failure is in the table `runs`. Or another
            process works on the run, and nothing has been done.
    """
    started_at = datetime.now(UTC)
    plan = make_plan(config, show=shown)
    with run_lock(plan.run.folder, wait=wait):
        return run_plan(plan, started_at)


def run_plan(plan: Plan, started_at: datetime) -> str:
    """Edit, measure and publish, as the run's only process; see `benchmark`."""
    config = plan.config
    write_configuration(plan.run, plan.config)
    for sentence in plan.can_see:
        logger.info(sentence)
    plan.run.warehouse.set_aside_damaged(plan.run.name)
    edited = edit_all(plan)
    with LazyEngine(plan.model, config.engine) as engine:
        base = {order_seed: measure_or_fail(plan, plan.base(order_seed), engine) for order_seed in config.order_seeds}
        failed = {}
        for trajectory, checkpoints, edit_error in edited:
            errors = [edit_error, base[trajectory.order_seed]]
            if errors[1] is None:  # without the pristine model's answers there is nothing to compare with
                errors += [measure_or_fail(plan, plan.measured(trajectory, done), engine) for done in checkpoints]
            if any(errors):
                failed[trajectory] = "; ".join(error for error in errors if error)
        store_costs_of_engine(plan, engine)
    if not (engine.starts or failed):
        logger.info("run %r was complete: nothing was edited or measured again", plan.run.name)
    in_task(publish_run, plan, failed, started_at, name="publish")
    if failed:
        raise RuntimeError("; ".join(f"{trajectory.label} failed: {error}" for trajectory, error in failed.items()))
    return str(plan.run.report)


def edit_all(plan: Plan) -> list[tuple[Trajectory, list[Checkpoint], str | None]]:
    """Edit along every trajectory, several at once if the configuration says so; those are then found, and stored."""
    at_once = plan.config.trajectories_at_once > 1
    failed = in_task(edit_at_once, plan, name="edit several at once", tags=device_tags()) if at_once else {}
    return [
        (trajectory, *edit_or_fail(plan, trajectory, failed=failed.get(trajectory)))
        for trajectory in plan.trajectories()
    ]


@task(cache_policy=NO_CACHE, persist_result=False)
def edit_at_once(plan: Plan) -> dict[Trajectory, str]:
    """Edit what is not edited yet, each trajectory in a process of its own; gives why those that failed did."""
    return edit_in_processes(plan, show=lines_in_flow)


def edit_or_fail(
    plan: Plan, trajectory: Trajectory, *, failed: str | None = None
) -> tuple[list[Checkpoint], str | None]:
    """Edit along a trajectory; running out of memory or an unsolvable system is a result, not the end of the run.

    Args:
        plan: The run.
        trajectory: Which one.
        failed: How it failed already.

    Returns:
        The checkpoints, those before the failure if it failed, and how it failed.
    """
    name = f"edit {trajectory.label}, order {trajectory.order_seed}"
    try:
        if failed is None:
            return in_task(edit, plan, trajectory, name=name, tags=device_tags()), None
    except (RuntimeError, MemoryError) as error:
        failed = one_line(error)
    folder, requests = plan.checkpoints_folder(trajectory), plan.planned(trajectory.order_seed)
    before = written_checkpoints(trajectory.job, requests, folder)
    return store_checkpoints(plan, trajectory, before), failed


@task(cache_policy=NO_CACHE, persist_result=False)
def edit(plan: Plan, trajectory: Trajectory) -> list[Checkpoint]:
    """Edit to the last edit count, from the newest whole checkpoint on, and store what each checkpoint took."""
    requests = plan.planned(trajectory.order_seed)
    folder, title = plan.checkpoints_folder(trajectory), f"Editing with {trajectory.label}"
    checkpoints = run_editing_job(trajectory.job, requests, folder, show=shown_in_flow, title=title)
    return store_checkpoints(plan, trajectory, checkpoints)


def store_checkpoints(plan: Plan, trajectory: Trajectory, checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """Store what is known of each checkpoint: its tensors, its turns, and what they took."""
    for checkpoint in checkpoints:
        store_checkpoint(plan.point(trajectory, checkpoint.record.edit_count), checkpoint)
    return checkpoints


def measure_or_fail(plan: Plan, measured: MeasuredCheckpoint, engine: LazyEngine) -> str | None:
    """Measure one checkpoint, in a task run that says which; an engine that cannot do it is no end of the run.

    Returns:
        How it failed, if it did; what was measured of it before is stored.
    """
    name = f"measure {measured.point.trajectory} at {measured.point.edit_count}"
    try:
        in_task(measure_stored, plan, measured, engine, name=name)
    except (RuntimeError, MemoryError) as error:
        return f"{name}: {one_line(error)}"
    return None


@task(cache_policy=NO_CACHE, persist_result=False, retries=2, retry_delay_seconds=5, retry_condition_fn=is_input_output)
def measure_stored(plan: Plan, measured: MeasuredCheckpoint, engine: LazyEngine) -> None:
    """Ask every probe, the perplexity and the general benchmarks of one checkpoint, if they are not stored yet."""
    measure(measured, plan.measure_options(), engine=engine, show=shown_in_flow, loader=plan.loader)


@task(cache_policy=NO_CACHE, persist_result=False, retries=2, retry_delay_seconds=5, retry_condition_fn=is_input_output)
def publish_run(plan: Plan, failed: dict[Trajectory, str], started_at: datetime) -> None:
    """Store how each trajectory ended, and write the report, the curve and the artifacts."""
    for order_seed in plan.config.order_seeds:
        base = plan.base(order_seed)
        store_requests(base.point, base.requests, digest_of_requests=base.requests.digest, overwritten=base.overwritten)
    for trajectory in plan.trajectories():
        point = plan.point(trajectory, plan.config.edit_counts[-1])
        store_run(
            point,
            label=trajectory.label,
            method_config=trajectory.job.method.model_dump_json(),
            config=plan.config.model_dump_json(),
            model_digest=plan.model.digest,
            engine=engine_kind(plan.config.engine),
            error=failed.get(trajectory),
            started_at=started_at,
        )
    publish(plan.run)


def store_costs_of_engine(plan: Plan, engine: LazyEngine) -> None:
    """Store a row for each start of the engine: one for all trajectories, unless it had to be started again."""
    store_engine_starts(plan.base(plan.config.order_seeds[0]).point, engine.starts)
