"""The command that tells what a run will take."""

from __future__ import annotations

from typing import Annotated

import typer

from overedit.flows.cli.running import RunHome, Settings, given
from overedit.flows.launch import prepare_prefect


def plan(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped one, e.g. demo.")],
    settings: Settings = None,
    memory: Annotated[float | None, typer.Option(metavar="GIB", min=0.001, help="Of the host; this machine's.")] = None,
    gpu_memory: Annotated[float | None, typer.Option(metavar="GIB", min=0, help="Of one GPU; this machine's.")] = None,
    disk: Annotated[float | None, typer.Option(metavar="GIB", min=0, help="Free disk; this machine's.")] = None,
    output: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
    home: RunHome = None,
) -> None:
    """Tell what a run will take - memory, disk, operations, time - and refuse one that cannot fit."""
    prepare_prefect()
    from overedit.flows.config.loading import validated
    from overedit.flows.config.models import BenchmarkConfig
    from overedit.flows.fitting import check_fits
    from overedit.flows.forecast import count_facts, forecasts
    from overedit.flows.plan import make_plan
    from overedit.tasks.planning.machine import this_machine
    from overedit.tasks.planning.table import check_format, forecast_text
    from overedit.tasks.system.progress import shown

    check_format(output)
    content, where = given(config, settings, home)
    checked = validated(BenchmarkConfig, content, where=where)
    made = make_plan(checked, show=shown, changed=True)
    stated = {"host": memory, "gpu": gpu_memory, "disk": disk}
    machine = this_machine(made.run.home)._replace(
        **{name: size * 2**30 for name, size in stated.items() if size is not None}
    )
    facts = count_facts(made, machine)
    cases = forecasts(facts, made.config)
    print(forecast_text(cases, output))
    check_fits(facts, made.config, cases)
