"""Registering work pool, limits, deployments and automations with a Prefect server; doing it again changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.workers.process import ProcessWorker

from overedit.flows.launch import WORK_POOL

GPU_TAG = "gpu"
ALERTS = "overedit-alerts"
"""The name of the notification blocks that are told of failed runs; one block of each kind may have it."""


def deploy_all(server: str, *, webhook: str | None = None) -> Iterator[str]:
    """Register everything in deployments/ with a server.

    Args:
        server: The URL of its API.
        webhook: An address that is told of failed runs, as JSON.

    Yields:
        What was done, in words.

    Raises:
        RuntimeError: Prefect's command line failed; with its output.
    """
    folder = Path(str(files("overedit.deployments")))
    with temporary_settings({PREFECT_API_URL: server}), get_client(sync_client=True) as client:
        _make_pool(client)
        if GPU_TAG not in {limit.tag for limit in client.read_concurrency_limits(limit=200, offset=0)}:
            client.create_concurrency_limit(tag=GPU_TAG, concurrency_limit=1)
        yield f"work pool {WORK_POOL}, and a limit on tasks with the tag {GPU_TAG}; limits that are there stay"
        yield _deploy(folder / "prefect.yaml", server)
        if webhook is not None:
            _webhook_block(webhook).save(ALERTS, overwrite=True)
        alerts = _alert_blocks(client)
        for automation in yaml.safe_load((folder / "automations.yaml").read_text(encoding="utf-8")):
            yield _automate(client, automation, alerts)


def _make_pool(client: SyncPrefectClient) -> None:
    """Create or update the work pool; its own limit stays."""
    limit = None
    with suppress(ObjectNotFound):
        limit = client.read_work_pool(WORK_POOL).concurrency_limit
    template = ProcessWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name=WORK_POOL, type="process", base_job_template=template, concurrency_limit=limit)
    client.create_work_pool(pool, overwrite=True)


def _deploy(prefect_file: Path, server: str) -> str:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(prefect_file)]
    done = subprocess.run(command, env=os.environ | {"PREFECT_API_URL": server}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command[1:])} failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    content = yaml.safe_load(prefect_file.read_text(encoding="utf-8"))
    return f"deployments {', '.join(each['name'] for each in content['deployments'])}; overedit worker runs them"


def _webhook_block(url: str) -> CustomWebhookNotificationBlock:
    content = {"subject": "{{subject}}", "body": "{{body}}", "text": "{{subject}}\n{{body}}"}
    return CustomWebhookNotificationBlock(name="overedit", url=url, json_data=content, headers=None, cookies=None)


def _alert_blocks(client: SyncPrefectClient) -> list[UUID]:
    """The notification blocks that are called `ALERTS`, of whatever kind."""
    named = [block for block in client.read_block_documents(include_secrets=False) if block.name == ALERTS]
    return [block.id for block in named if block.block_schema and "notify" in block.block_schema.capabilities]


def _automate(client: SyncPrefectClient, content: Mapping[str, Any], alerts: list[UUID]) -> str:
    """Create or update an automation; one that only notifies needs somebody to notify."""
    actions: list[dict[str, Any]] = []
    for action in content["actions"]:
        is_alert = action["type"] == "send-notification"
        actions += [action | {"block_document_id": block} for block in alerts] if is_alert else [action]
    there = [automation.id for automation in client.read_automations_by_name(content["name"])]
    if not actions:
        for identifier in there:
            client.delete_automation(identifier)
        return f"no automation {content['name']!r}: there is no notification block {ALERTS}; see overedit deploy --help"
    automation = AutomationCore.model_validate({**content, "actions": actions})
    if there:
        client.update_automation(there[0], automation)
    else:
        client.create_automation(automation)
    return f"automation {content['name']!r}"
