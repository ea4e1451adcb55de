"""The report of a search for settings: a table for the terminal, a page, and a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from overedit.tasks.report.tuning_figure import tuning_picture
from overedit.tasks.report.tuning_page import render_tuning
from overedit.tasks.runs.run import Run
from overedit.tasks.storage.working_copy import replace_file
from overedit.tasks.warehouse.tables import Row
from overedit.tasks.warehouse.views import literal


class TuningData(NamedTuple):
    """The rows of a search."""

    run: str
    chosen: list[Row]
    """Rows of `tuned_settings`, the best on test edits first."""
    trials: list[Row]
    """Rows of `tuning_trials`."""


def chosen_rows(run: Run) -> list[Row]:
    """The chosen settings of each method, the best on test edits first."""
    where = f"run = {literal(run.name)}"
    rows = run.warehouse.query(f"SELECT * FROM tuned_settings WHERE {where} ORDER BY test DESC NULLS LAST, trajectory")
    return list(rows.to_pylist())


def collect_tuning(run: Run) -> TuningData:
    """Read the rows of a search.

    Raises:
        ValueError: The warehouse has no search of this name.
    """
    chosen = chosen_rows(run)
    if not chosen:
        raise ValueError(f"run: {run.name!r} is no search with a finished method in {run.warehouse.root}")
    sql = f"SELECT * FROM tuning_trials WHERE run = {literal(run.name)}"
    return TuningData(run.name, chosen, list(run.warehouse.query(sql).to_pylist()))


def write_tuning_report(run: Run) -> Path:
    """Write the page `reports/NAME.tune.html` and the picture `reports/NAME.tune.png`.

    Returns:
        The page.
    """
    data = collect_tuning(run)
    page = run.report.with_name(f"{run.name}.tune.html")
    for path, content in (
        (page.with_suffix(".png"), tuning_picture(data.chosen, data.trials)),
        (page, render_tuning(data.run, data.chosen, data.trials).encode()),
    ):
        with replace_file(path) as stream:
            stream.write(content)
    return page


def tuning_table(run: Run) -> Table:
    """The table of a search for a terminal: each method's chosen settings, on validation and on test edits."""
    table = Table(
        title=Text(f"{run.name}: {run.model} on {run.dataset}, the objective in % with its 95 % interval"),
        caption="validation is the best of all trials and flatters; given: settings before the search, on test edits",
        padding=(0, 0),
        pad_edge=False,
        show_lines=True,
    )
    for name in ("method", "trials", "validation", "test", "gap", "given", "chosen settings"):
        table.add_column(name, justify="left" if name in ("method", "chosen settings") else "right", overflow="fold")
    for row in chosen_rows(run):
        table.add_row(
            Text(row["label"]),
            f"{row['num_trials']}\n{row['num_pruned']} pruned",
            *(_with_bounds(row, name) for name in ("validation", "test", "gap", "given_test")),
            Text(_settings(row)),
        )
    return table


def _settings(row: Row) -> str:
    if row["kept"] == "given":
        return "the given ones are kept: no trial is better on validation"
    return "\n".join(f"{key} {value}" for key, value in json.loads(row["settings"]).items())


def _with_bounds(row: Row, name: str) -> str:
    if row[name] is None:
        return "-"
    return f"{100 * row[name]:.1f}\n{100 * row[f'{name}_low']:.1f} to {100 * row[f'{name}_high']:.1f}"
