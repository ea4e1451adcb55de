"""The command that searches among sites."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from overedit.flows.cli.running import RunHome, Settings, Wait, given, leave, run_planned


def locate(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped one, e.g. locate-pocket.")],
    settings: Settings = None,
    wait: Wait = False,
    home: RunHome = None,
) -> None:
    """Edit at each site (layers x parts) of a model, show heat maps of the scores, and propose a site."""
    from overedit.flows.launch import prepare_prefect

    prepare_prefect()
    from overedit.flows.config.loading import validated
    from overedit.flows.config.locate import LocateConfig
    from overedit.flows.locate import flow_of, make_locate_plan
    from overedit.tasks.locate.ranking import proposal, ranking_table
    from overedit.tasks.system.progress import shown

    content, where = given(config, settings, home)
    plan = make_locate_plan(validated(LocateConfig, content, where=where), show=shown)
    page, server_is_lost = run_planned(flow_of(plan), plan, wait=wait)
    ranking = plan.rankings()[0]
    Console().print(ranking_table(ranking))
    print(proposal(ranking))
    print(f"report: {page}")
    leave(server_is_lost)
