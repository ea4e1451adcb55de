"""A comparison of two runs as tables for a terminal of 80 columns, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from overedit.tasks.report.comparison.compare import Comparison
from overedit.tasks.report.comparison.differences import Difference
from overedit.tasks.report.formatting import markdown_table, rounded

FORMATS = ("table", "markdown", "json")
_SHORT = {
    "reliability": "rel.",
    "generalization": "gen.",
    "persona": "pers.",
    "locality": "loc.",
    "portability": "port.",
    "mean": "cap.",
}
_PAIRING = (
    "~ is not paired: the runs asked different questions. p is adjusted by Holm's method over all {number} differences "
    "(benchmark by benchmark in the other formats); perplexity is compared as a ratio."
)


def comparison_table(comparison: Comparison) -> RenderableType:
    """The comparison as tables that fit 80 columns; of the benchmarks only their mean."""
    differing = Table("setting", "A", "B", title="Settings that differ", padding=(0, 1), pad_edge=False)
    for column in differing.columns:
        column.overflow = "fold"
    for setting in comparison.settings:
        differing.add_row(*(Text("-" if value is None else value) for value in setting))
    table = Table(title=f"{comparison.protocol} protocol, percent", padding=(0, 0), pad_edge=False)
    for name in ("method", "edits", "", "A", "B", "B - A", "95 %", "p"):
        table.add_column(name, justify="left" if name in ("method", "") else "right", overflow="fold")
    for one in comparison.differences:
        if one.point.kind != "capability" or one.point.measure == "mean":
            table.add_row(*map(Text, _cells(one, is_short=True)))
    collapses = Table("method", "A collapses at", "B collapses at", padding=(0, 1), pad_edge=False)
    for row in _collapses(comparison):
        collapses.add_row(*map(Text, row))
    settings = [differing] if comparison.settings else [Text("No setting differs.")]
    notes = [Text(line) for line in [*_notes(comparison), _PAIRING.format(number=len(comparison.differences))]]
    return Group(Text(f"A: {comparison.first}\nB: {comparison.second}"), *settings, table, collapses, *notes)


def comparison_markdown(comparison: Comparison) -> str:
    """The comparison as Markdown, with every benchmark."""
    settings = [[_shown(value) for value in setting] for setting in comparison.settings]
    headings = ("method", "edits", "measure", "A", "B", "B - A", "95 %", "p, adjusted")
    collapses = ("method", "A collapses at", "B collapses at")
    parts = [
        f"# {comparison.first} (A) and {comparison.second} (B)",
        "## Settings that differ",
        markdown_table(("setting", "A", "B"), settings, text_columns=(0, 1, 2)) if settings else "None.",
        f"## {comparison.protocol.replace('_', '-').capitalize()} protocol, percent",
        markdown_table(headings, [_cells(one) for one in comparison.differences], text_columns=(0, 2)),
        _PAIRING.format(number=len(comparison.differences)).replace("~", "`~`"),
        "## Collapse",
        markdown_table(collapses, _collapses(comparison), text_columns=(0, 1, 2)),
        *_notes(comparison),
    ]
    return "\n\n".join(parts) + "\n"


def comparison_json(comparison: Comparison) -> str:
    """The comparison as JSON in full precision; shares are in [0, 1]."""
    content = comparison._asdict() | {
        "settings": [setting._asdict() for setting in comparison.settings],
        "differences": [_record(one) for one in comparison.differences],
        "collapses": [collapse._asdict() for collapse in comparison.collapses],
    }
    return json.dumps(content, indent=1, allow_nan=False)


def _record(one: Difference) -> dict[str, Any]:
    fields = {**one.point._asdict(), **one._asdict(), "is_paired": one.n is not None}
    del fields["point"]
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in fields.items()
    }


def _cells(one: Difference, *, is_short: bool = False) -> list[str]:
    kind, measure = one.point.kind, one.point.measure
    is_ratio = kind == "perplexity"
    if is_short:
        name = "ppl." if is_ratio else _SHORT.get(measure, measure)
    else:
        name = measure if kind == "outcome" else f"{kind}: {measure}"
    values = [_number(value, is_ratio) for value in (one.first, one.second)]
    change = "-" if one.difference is None else _change(one.difference, is_ratio)
    interval = (
        "-" if one.low is None or one.high is None else f"{_change(one.low, is_ratio)} {_change(one.high, is_ratio)}"
    )
    p_value = "-" if one.p_adjusted is None else "<.001" if one.p_adjusted < 0.001 else f"{one.p_adjusted:.3f}"
    mark = " ~" if one.n is None else ""
    return [one.point.name, f"{one.point.edit_count:,}", f"{name}{mark}", *values, change, interval, p_value]


def _number(value: float, is_ratio: bool) -> str:
    return f"{value:.3g}" if is_ratio else f"{100 * value:.1f}"


def _change(value: float, is_ratio: bool) -> str:
    return f"×{value:.3g}" if is_ratio else f"{100 * value:+.1f}"


def _collapses(comparison: Comparison) -> list[list[str]]:
    def at(count: int | None, reason: str | None) -> str:
        return "none" if count is None else f"{rounded(count)}: {reason}"

    return [
        [one.name, at(one.first, one.first_reason), at(one.second, one.second_reason)] for one in comparison.collapses
    ]


def _notes(comparison: Comparison) -> list[str]:
    """Sentences on trajectories that only one run has, and on settings that are not stored yet."""
    alone = [(comparison.first, comparison.only_first), (comparison.second, comparison.only_second)]
    return [
        *(f"Only {run} has {', '.join(names)}." for run, names in alone if names),
        *(f"The settings of {run} are not stored yet: it has not ended." for run in comparison.unfinished),
    ]


def _shown(value: str | None) -> str:
    return "-" if value is None else value
