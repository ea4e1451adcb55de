"""The commands that read results; they start no server and no engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

Home = Annotated[Path, typer.Option(help="The folder of warehouse/, runs/ and reports/.")]


def sql(
    query: Annotated[str, typer.Argument(help="A SELECT over the tables and views.")],
    output: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    home: Home = Path(),
) -> None:
    """Ask the warehouse, read-only."""
    from overedit.tasks.report.formatting import format_rows
    from overedit.tasks.warehouse.warehouse import Warehouse

    print(format_rows(Warehouse(warehouse_folder(home)).query(query), output))


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


def site(
    out: Annotated[Path, typer.Argument(help="The folder to write: new, empty, or a site already.")],
    home: Home = Path(),
) -> None:
    """Write static pages over all runs: leaderboard, curves, history, and the runs' reports."""
    from overedit.tasks.site.site import write_site
    from overedit.tasks.warehouse.warehouse import Warehouse

    print(f"wrote {write_site(Warehouse(warehouse_folder(home)), out, reports=home / 'reports')}")


def warehouse_folder(home: Path) -> Path:
    """The warehouse of a home.

    Raises:
        ValueError: There is no warehouse.
    """
    folder = home / "warehouse"
    if not folder.is_dir():
        raise ValueError(
            f"there is no warehouse in {home.resolve()}; run a benchmark first, or name its folder with --home"
        )
    return folder
