"""The report's tables of a search for the collapse as HTML; empty where the run has none."""

from __future__ import annotations

from html import escape

from overedit.tasks.report.analysis_tables import number, text
from overedit.tasks.report.data import Row, RunData
from overedit.tasks.report.formatting import rounded, shown_bracket
from overedit.tasks.report.html import DASH, key, table

_HEADINGS = ("Method", "Definition", "Takes", "Last good", "Collapse at", "Undecided inside", "Counts measured")
_ORDERS = ("Method", "Definition", "Orders", "Collapsed", "Lowest", "Median", "Highest", "Mean", "95 %", "Why none")


def brackets(data: RunData) -> str:
    """The answer of each search, a row for each trajectory and definition."""
    rows = [
        [
            key(trajectory),
            escape(row["definition"]),
            escape(shown_bracket(row).partition(" (")[0]),
            *(number(name)(row) for name in ("last_good", "collapse_at", "undecided", "num_measured")),
        ]
        for trajectory in data.trajectories
        for row in data.of(trajectory, "collapse_search")
    ]
    return table(_HEADINGS, rows, text_columns=(0, 1)) if rows else ""


def over_orders(data: RunData) -> str:
    """The same over the orderings of the edits, where there are several."""
    rows = [_order_cells(row) for row in data.views["collapse_over_orders"] if row["num_orders"] > 1]
    return table(_ORDERS, rows, text_columns=(0, 1, 9)) if rows else ""


def _order_cells(row: Row) -> list[str]:
    interval = DASH if row["low"] is None else f"{rounded(row['low'])} to {rounded(row['high'])}"
    names = ("num_orders", "num_collapsed", "lowest", "median", "highest", "mean")
    return [
        text("label")(row),
        text("definition")(row),
        *(number(name)(row) for name in names),
        interval,
        text("reason")(row),
    ]
