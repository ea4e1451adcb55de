"""HTML of the report's tables, numbers and names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape

from overedit.tasks.report.data import Trajectory

DASH = "–"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: Collection[int] = (0,)) -> str:
    """An HTML table from cells of HTML and headings of plain text."""
    classes = ['class="text"' if index in text_columns else "" for index in range(len(headings))]
    head = "".join(f"<th scope=col {kind}>{escape(name)}</th>" for name, kind in zip(headings, classes, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td {kind}>{cell}</td>" for cell, kind in zip(row, classes, strict=True)) + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'
    )


def key(trajectory: Trajectory) -> str:
    """A trajectory's name with a swatch of its color."""
    return f'<span class="key" style="--color:var(--c{trajectory.color % 10})"></span>{escape(trajectory.name)}'


def by_view(view: str, title: str, content: str) -> str:
    """Content that the page shows while a protocol or preset is chosen; without scripts it shows all, each titled."""
    return f'<div data-view="{escape(view)}"><p class="view">{escape(title)}</p>{content}</div>'


def protocol_name(protocol: str) -> str:
    """The display name of a protocol."""
    return f"{protocol.replace('_', '-').capitalize()} protocol"


def percent(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A share in percent, with its interval below."""
    if value is None:
        return DASH
    interval = "" if low is None or high is None else f"<small>{100 * low:.1f} to {100 * high:.1f}</small>"
    return f"{100 * value:.1f}{interval}"


def base_or(count: int) -> str:
    """An edit count; 0 is `base`."""
    return "base" if count == 0 else f"{count:,}"
