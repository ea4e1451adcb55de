"""How a deployed benchmark ends in Prefect: the flow run's state and name, and an event where numbers moved."""

from __future__ import annotations

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from overedit.flows.benchmark import GateFailedError, run_alone
from overedit.flows.plan import Plan
from overedit.tasks.report.comparison.task import moved_text
from overedit.tasks.runs.instances import Instance
from overedit.tasks.site.site import write_site
from overedit.tasks.storage.outline import downloaded
from overedit.tasks.storage.working_copy import shown_path, sync

MOVED_EVENT = "overedit.numbers-moved"
"""The event that deployments/automations.yaml waits for."""


def run_to_state(plan: Plan, *, requested_by: str) -> State[str]:
    """Run a plan, and say by the flow run's name and state whether numbers moved.

    Returns:
        Completed, named after the verdict, with the path of the report page; Failed, named GateFailed, if a number
        fails the gate.

    Raises:
        RuntimeError: A trajectory failed, or another process works on the run.
    """
    try:
        instance = run_alone(plan, wait=True, requested_by=requested_by)
    except GateFailedError as error:
        _show(error.instance)
        return Failed(name="GateFailed", message=str(error))  # which the automation for failed runs reports
    _show(instance)
    if instance.row["num_moved"]:
        _emit_moved(instance)
    verdict = str(instance.row["verdict"])
    return Completed(name=verdict[:1].upper() + verdict[1:], message=verdict, data=shown_path(plan.run.report))


def _show(instance: Instance) -> None:
    """Write the site again, and put the verdict into the flow run's name."""
    home = instance.run.home
    with downloaded(home / "reports") as reports:
        write_site(instance.run.warehouse, home / "site", reports=reports)
    sync(home / "site")
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        with get_client(sync_client=True) as client:
            client.update_flow_run(context.flow_run.id, name=f"{context.flow_run.name}: {instance.row['verdict']}")


def _emit_moved(instance: Instance) -> None:
    emit_event(
        event=MOVED_EVENT,
        resource={"prefect.resource.id": f"prefect.flow-run.{flow_run.id}"},
        payload={"verdict": instance.row["verdict"], "text": moved_text(instance)},
    )
