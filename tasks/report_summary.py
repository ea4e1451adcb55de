"""The report in short: the paper's table for terminals, for Markdown files and for the flow's artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.table import Table
from rich.text import Text

from tasks import report_sections as sections
from tasks.atomic_files import replace_file
from tasks.report_data import Line, RunData, collect
from tasks.report_gaps import gaps
from tasks.result_text import rounded
from tasks.warehouse import Warehouse

_COLUMNS = ("method", "edits", "rel. %", "gen. %", "loc. %", "port. %", "cap. %", "ppl. ×", "s/edit", "collapse")


def summary_table(warehouse: Warehouse, run: str) -> Table:
    """The paper's table for a terminal of 80 columns: each method at its last edit count, generated protocol.

    Raises:
        ValueError: The run is not in the warehouse.
    """
    data = collect(warehouse, run)
    about = data.views["leaderboard"][0]
    table = Table(
        title=Text(f"{run}: {about['model']} on {about['dataset']}, generated protocol"),
        caption="reliability, generalization, locality, portability, capability; perplexity over the pristine model's",
        padding=(0, 0),
        pad_edge=False,
    )
    for index, name in enumerate(_COLUMNS):
        is_text = index in (0, len(_COLUMNS) - 1)
        table.add_column(name, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    for cells in _summary(data):
        table.add_row(*map(Text, cells))
    return table


def summary_markdown(warehouse: Warehouse, run: str) -> str:
    """The same table as Markdown, a sentence a method below it.

    Raises:
        ValueError: The run is not in the warehouse.
    """
    data = collect(warehouse, run)
    rows = [_COLUMNS, ["---"] + ["---:"] * (len(_COLUMNS) - 2) + ["---"], *_summary(data)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    said = [f"- **{line.name}** {' '.join(sections.verdict(data, line))}" for line in data.lines]
    return "\n".join([*lines, "", *said, ""])


def _summary(data: RunData) -> list[list[str]]:
    return [_summary_row(data, line) for line in data.lines]


def _summary_row(data: RunData, line: Line) -> list[str]:
    row = data.one(line, "leaderboard")
    assert row is not None
    shares = [row[name] for name in ("reliability", "generalization", "locality", "portability", "capability")]
    if row["collapse_at"] is not None:
        collapse = f"at {row['collapse_at']:,}: {row['collapse_reason']}"
    else:
        collapse = "failed" if row["status"] == "failed" else "none"
    return [
        line.name,
        rounded(row["edit_count"]) or "-",
        *("-" if share is None else f"{100 * share:.1f}" for share in shares),
        "-" if row["perplexity_ratio"] is None else f"{row['perplexity_ratio']:.3g}",
        "-" if row["seconds_per_edit"] is None else f"{row['seconds_per_edit']:.2g}",
        collapse,
    ]
