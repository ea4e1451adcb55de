"""The search for settings, and where presets come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from overedit.flows.cli.results import local_folder
from overedit.flows.cli.running import Changed, RunHome, Settings, Wait, given, leave, run_planned
from overedit.flows.launch import prepare_prefect


def tune(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped one, e.g. tune-pocket.")],
    settings: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder of the preset files; HOME/presets/NAME if not given.", callback=local_folder),
    ] = None,
    wait: Wait = False,
    changed: Changed = False,
    home: RunHome = None,
) -> None:
    """Search the settings of methods, each with the same budget, on edits that no benchmark has."""
    prepare_prefect()
    from overedit.flows.config.loading import validated
    from overedit.flows.config.tuning import TuneConfig
    from overedit.flows.tune import flow_of, make_tune_plan
    from overedit.tasks.report.tuning import tuning_table
    from overedit.tasks.storage.working_copy import shown_path
    from overedit.tasks.system.progress import shown

    content, where = given(config, settings, home)
    plan = make_tune_plan(validated(TuneConfig, content, where=where), out=out, show=shown, changed=changed)
    report, server_is_lost = run_planned(flow_of(plan), plan, wait=wait)
    Console().print(tuning_table(plan.run))
    print(f"report: {report}\npresets: {shown_path(plan.out)}")
    leave(server_is_lost)


def presets(
    provenance: Annotated[
        str | None,
        typer.Option(metavar="pocket|FOLDER", help="Show where the preset files of a folder come from instead."),
    ] = None,
) -> None:
    """List papers' own protocols: what each measures, and what it asks of a run."""
    if provenance is not None:
        from overedit.tasks.report.formatting import format_rows
        from overedit.tasks.tune.preset_file import provenance_rows

        print(format_rows(provenance_rows(provenance)))
        return
    from overedit.flows.config.presets import presets_table

    Console().print(presets_table())
