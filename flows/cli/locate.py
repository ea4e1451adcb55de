"""The command that searches among sites."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from overedit.flows.cli.running import Settings, leave, stop_ends_with_130


def locate(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped one, e.g. locate-pocket.")],
    settings: Settings = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another process that works on this run.")] = False,
) -> None:
    """Edit at each site (layers x parts) of a model, show heat maps of the scores, and propose a site."""
    from overedit.flows.launch import execute, prepare_prefect

    prepare_prefect()
    from overedit.flows.config.loading import named_content, validated, with_settings
    from overedit.flows.config.locate import LocateConfig
    from overedit.flows.locate import flow_of, make_locate_plan
    from overedit.tasks.locate.ranking import proposal, ranking_table
    from overedit.tasks.system.locks import check_run_is_free
    from overedit.tasks.system.progress import shown

    content, where = named_content(config)
    plan = make_locate_plan(validated(LocateConfig, with_settings(content, settings or []), where=where), show=shown)
    if not wait:
        check_run_is_free(plan.run.folder)
    with stop_ends_with_130():
        page, server_is_lost = execute(flow_of(plan), plan.config, wait=wait)
    ranking = plan.rankings()[0]
    Console().print(ranking_table(ranking))
    print(proposal(ranking))
    print(f"report: {page}")
    leave(server_is_lost)
