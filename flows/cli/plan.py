"""The command that tells what a run will take."""

from __future__ import annotations

from typing import Annotated

import typer

from overedit.flows.cli.running import Settings
from overedit.flows.launch import prepare_prefect


def plan(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped one, e.g. demo.")],
    settings: Settings = None,
    memory: Annotated[float | None, typer.Option(metavar="GIB", min=0.001, help="Of the host; this machine's.")] = None,
    gpu_memory: Annotated[float | None, typer.Option(metavar="GIB", min=0, help="Of one GPU; this machine's.")] = None,
    disk: Annotated[float | None, typer.Option(metavar="GIB", min=0, help="Free disk; this machine's.")] = None,
    output: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """Tell what a run will take - memory, disk, operations, time - and refuse one that cannot fit."""
    prepare_prefect()
    from overedit.flows.config.loading import named_content, validated, with_settings
    from overedit.flows.config.models import BenchmarkConfig
    from overedit.flows.fitting import check_fits
    from overedit.flows.forecast import count_facts, forecasts
    from overedit.flows.plan import make_plan
    from overedit.tasks.planning.machine import this_machine
    from overedit.tasks.planning.table import check_format, forecast_text
    from overedit.tasks.system.progress import shown

    check_format(output)
    content, where = named_content(config)
    checked = validated(BenchmarkConfig, with_settings(content, settings or []), where=where)
    made = make_plan(checked, show=shown, changed=True)
    given = {"host": memory, "gpu": gpu_memory, "disk": disk}
    machine = this_machine(made.run.home)._replace(
        **{name: size * 2**30 for name, size in given.items() if size is not None}
    )
    facts = count_facts(made, machine)
    cases = forecasts(facts, made.config)
    print(forecast_text(cases, output))
    check_fits(facts, made.config, cases)
