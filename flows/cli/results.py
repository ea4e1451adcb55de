"""The commands that read results; they start no server and no engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def local_folder(parameter: typer.CallbackParam, folder: Path) -> Path:
    """The folder that an option or argument names; raises ValueError for a URL."""
    from overedit.tasks.runs.run import check_home

    check_home(folder, str(parameter.name))
    return folder


Home = Annotated[Path, typer.Option(help="The folder of warehouse/, runs/ and reports/.", callback=local_folder)]


def sql(
    query: Annotated[str, typer.Argument(help="A SELECT over the tables and views.")],
    output: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    attach: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]FOLDER", help="Another home, whose tables and views are NAME.leaderboard, ..."),
    ] = None,
    home: Home = Path(),
) -> None:
    """Ask the warehouse, read-only, or several at once."""
    from overedit.tasks.report.formatting import format_rows
    from overedit.tasks.runs.run import check_home
    from overedit.tasks.warehouse.attached import named_folders
    from overedit.tasks.warehouse.warehouse import Warehouse

    folders = named_folders(attach or [])
    for folder in folders.values():
        check_home(folder, "attach")
    others = {name: Warehouse(warehouse_folder(folder, "--attach")) for name, folder in folders.items()}
    print(format_rows(Warehouse(warehouse_folder(home)).query(query, attach=others), output))


def report(
    name: Annotated[str, typer.Argument(help="A run's name.")],
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
    from overedit.tasks.runs.run import check_name
    from overedit.tasks.warehouse.warehouse import Warehouse

    check_name(name)
    for path in write_files(
        Warehouse(warehouse_folder(home)), name, home / "reports", format=output, protocol=protocol
    ):
        print(f"wrote {path}")


def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="A run's name.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="Another run's name.")],
    output: Annotated[str, typer.Option("--format", help="table, markdown or json.")] = "table",
    protocol: Annotated[str, typer.Option(help="generated, teacher_forced or probability.")] = "generated",
    home: Home = Path(),
) -> None:
    """Compare two runs: settings that differ, and numbers that differ by more than chance."""
    from overedit.tasks.report.comparison.compare import compare
    from overedit.tasks.report.comparison.rendering import (
        FORMATS,
        comparison_json,
        comparison_markdown,
        comparison_table,
    )
    from overedit.tasks.warehouse.warehouse import Warehouse

    if output not in FORMATS:
        raise ValueError(f"format: {output!r} is unknown; choose one of {', '.join(FORMATS)}")
    found = compare(Warehouse(warehouse_folder(home)), first, second, protocol=protocol)
    if output == "table":
        Console().print(comparison_table(found))
    else:
        print(comparison_json(found) if output == "json" else comparison_markdown(found))


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


def warehouse_folder(home: Path, option: str = "--home") -> Path:
    """The warehouse of a home.

    Args:
        home: The folder that holds `warehouse/`.
        option: The one that names it.

    Raises:
        ValueError: There is no warehouse.
    """
    folder = home / "warehouse"
    if not folder.is_dir():
        raise ValueError(
            f"there is no warehouse in {home.resolve()}; run a benchmark first, or name its folder with {option}"
        )
    return folder
