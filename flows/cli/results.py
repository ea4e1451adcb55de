"""The commands that read results; they start no server and no engine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def results_home(home: Path) -> Path:
    """The folder of a home, or the working copy of its URL; ValueError or OSError where it cannot be used."""
    from overedit.tasks.storage.stores import check_reachable
    from overedit.tasks.storage.working_copy import local_home, url_of

    folder = local_home(home)
    if (url := url_of(folder)) is not None:
        check_reachable(url)
    return folder


def local_folder(parameter: typer.CallbackParam, folder: Path) -> Path:
    """The folder that an option or argument names; raises ValueError for a URL."""
    from overedit.tasks.runs.run import check_folder

    check_folder(folder, str(parameter.name))
    return folder


Home = Annotated[
    Path,
    typer.Option(
        help="The folder of warehouse/, runs/ and reports/, or its URL: s3://bucket/folder.", callback=results_home
    ),
]


def sql(
    query: Annotated[str, typer.Argument(help="A SELECT over the tables and views.")],
    output: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    instance: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN@INSTANCE", help="Add the rows of an instance, whose run is RUN@INSTANCE."),
    ] = None,
    attach: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]FOLDER", help="Another home, whose tables and views are NAME.leaderboard, ..."),
    ] = None,
    home: Home = Path(),
) -> None:
    """Ask the warehouse, read-only, or several at once."""
    from overedit.tasks.report.formatting import format_rows
    from overedit.tasks.storage.working_copy import local_home
    from overedit.tasks.warehouse.attached import named_folders
    from overedit.tasks.warehouse.warehouse import Warehouse

    folders = {name: local_home(folder, "attach") for name, folder in named_folders(attach or []).items()}
    others = {name: Warehouse(warehouse_folder(folder, "--attach")) for name, folder in folders.items()}
    print(format_rows(Warehouse(warehouse_folder(home)).query(query, instances=instance or [], attach=others), output))


def report(
    name: Annotated[str, typer.Argument(help="A run's name, or RUN@INSTANCE.")],
    output: Annotated[
        str | None, typer.Option("--format", help="html, markdown, png or all; html and png if not given.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Of the pictures: generated, teacher_forced or probability.")
    ] = None,
    home: Home = Path(),
) -> None:
    """Write a run's report page and pictures from the warehouse."""
    from overedit.tasks.report.files import write_files
    from overedit.tasks.runs.run import check_reference
    from overedit.tasks.storage.working_copy import shown_path
    from overedit.tasks.warehouse.warehouse import Warehouse

    check_reference(name)
    for path in write_files(
        Warehouse(warehouse_folder(home)), name, home / "reports", format=output, protocol=protocol
    ):
        print(f"wrote {shown_path(path)}")


def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or RUN@INSTANCE.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="Another run's name, or RUN@INSTANCE.")],
    output: Annotated[str, typer.Option("--format", help="table, markdown or json.")] = "table",
    protocol: Annotated[str, typer.Option(help="generated, teacher_forced or probability.")] = "generated",
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="Exit with code 1 if a number moved: 'reliability < -0.02', 'perplexity > 1.05', 'any_significant'.",
        ),
    ] = None,
    home: Home = Path(),
) -> None:
    """Compare two runs: settings that differ, and numbers that differ by more than chance."""
    from overedit.tasks.report.comparison.compare import compare
    from overedit.tasks.report.comparison.gate import judged
    from overedit.tasks.report.comparison.limits import GateOptions
    from overedit.tasks.report.comparison.rendering import (
        FORMATS,
        comparison_json,
        comparison_markdown,
        comparison_table,
    )
    from overedit.tasks.warehouse.warehouse import Warehouse

    limits = GateOptions.parsed(fail_if or [])
    if output not in FORMATS:
        raise ValueError(f"format: {output!r} is unknown; choose one of {', '.join(FORMATS)}")
    found = compare(Warehouse(warehouse_folder(home)), first, second, protocol=protocol)
    if output == "table":
        Console().print(comparison_table(found))
    else:
        print(comparison_json(found) if output == "json" else comparison_markdown(found))
    failures = [one for one, _, failed in judged(found.differences, limits) if failed]
    for one in failures:
        print(
            f"failed: {one.point.name} at {one.point.edit_count:,} edits: {one.point.measure} {one.first:.4g} -> "
            f"{one.second:.4g}",
            file=sys.stderr,
        )
    if failures:
        raise typer.Exit(1)


def history(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A run's name.")],
    output: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    home: Home = Path(),
) -> None:
    """List the instances of a run, and each headline number over time."""
    from overedit.tasks.report.history import history_rows, history_tables
    from overedit.tasks.runs.run import check_name
    from overedit.tasks.warehouse.warehouse import Warehouse

    check_name(name)
    warehouse = Warehouse(warehouse_folder(home))
    if output == "table":
        for table in history_tables(warehouse, name):
            Console().print(table)
    else:
        print(history_rows(warehouse, name, output))


def accept(
    name: Annotated[str, typer.Argument(metavar="RUN[@INSTANCE]", help="A run; its newest instance by default.")],
    note: Annotated[str, typer.Option(help="Why the numbers are right.")] = "",
    home: Home = Path(),
) -> None:
    """Make an instance the baseline, with which later instances of the run are compared."""
    from overedit.tasks.runs.instances import accept
    from overedit.tasks.runs.run import check_reference
    from overedit.tasks.warehouse.warehouse import Warehouse

    check_reference(name)
    run, _, instance = name.partition("@")
    accepted = accept(Warehouse(warehouse_folder(home)), run, instance or None, note=note)
    print(f"{run}: later instances are compared with {accepted}")


def publish(
    name: Annotated[str, typer.Argument(metavar="RUN", help="A run's name.")],
    to: Annotated[str, typer.Option(help="mlflow or wandb.")],
    project: Annotated[str, typer.Option(help="MLflow's experiment, W&B's project.")] = "overedit",
    home: Home = Path(),
) -> None:
    """Copy a run's numbers, configuration and report to an experiment tracker, offline."""
    from overedit.tasks.export.publish import publish

    warehouse_folder(home)
    for line in publish(home, name, to=to, project=project):
        print(line)


def site(
    out: Annotated[Path, typer.Argument(help="The folder to write: new, empty, or a site already.")],
    home: Home = Path(),
) -> None:
    """Write static pages over all runs: leaderboard, curves, history, and the runs' reports."""
    from overedit.tasks.site.site import write_site
    from overedit.tasks.storage.outline import downloaded
    from overedit.tasks.warehouse.warehouse import Warehouse

    with downloaded(home / "reports") as reports:
        print(f"wrote {write_site(Warehouse(warehouse_folder(home)), out, reports=reports)}")


def warehouse_folder(home: Path, option: str = "--home") -> Path:
    """The warehouse of a home.

    Args:
        home: The folder that holds `warehouse/`.
        option: The one that names it.

    Raises:
        ValueError: There is no warehouse.
    """
    from overedit.tasks.storage.working_copy import is_folder, shown_path

    folder = home / "warehouse"
    if not is_folder(folder):
        raise ValueError(
            f"there is no warehouse in {shown_path(home.resolve())}; run a benchmark first, or name its folder with "
            f"{option}"
        )
    return folder
