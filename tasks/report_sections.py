"""The report's sentences and tables as HTML; whatever comes from data is escaped here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from tasks.report_data import SAMPLES, UPDATES, VIEWS, Line, Row, RunData
from tasks.result_text import rounded
from tasks.views import view_sql

DASH = "–"


_BENEATH = ("reliability_vs_capability", "diagnostics_by_turn", "trajectories", "_macros")
"""What those views are made of."""


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> str:
    """An HTML table; the cells are HTML already, the headings are not."""
    classes = ['class="text"' if index < text_columns else "" for index in range(len(headings))]
    head = "".join(f"<th scope=col {kind}>{escape(name)}</th>" for name, kind in zip(headings, classes, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td {kind}>{cell}</td>" for cell, kind in zip(row, classes, strict=True)) + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>'
    )


def key(index: int, line: Line) -> str:
    """A method's name beside its colour."""
    return f'<span class="key" style="--color:var(--c{index % 8})"></span>{escape(line.name)}'


def percent(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A share as percent, its interval under it."""
    if value is None:
        return DASH
    interval = "" if low is None or high is None else f"<small>{100 * low:.1f} to {100 * high:.1f}</small>"
    return f"{100 * value:.1f}{interval}"


def verdicts(data: RunData) -> str:
    """One sentence a method: where it collapsed and by what criterion, or up to where it did not."""
    return "\n".join(
        f'<li style="--color:var(--c{index % 8})"><strong>{escape(line.name)}</strong>'
        f"<b>{escape(headline)}</b><span>{escape(detail)}</span></li>"
        for index, line in enumerate(data.lines)
        for headline, detail in [verdict(data, line)]
    )


def verdict(data: RunData, line: Line) -> tuple[str, str]:
    """A sentence on a method's collapse, and what it rests on."""
    point, at_end = data.one(line, "collapse_point"), data.one(line, "leaderboard")
    assert point is not None and at_end is not None
    failed = f" Its run failed: {point['error']}" if point["status"] == "failed" else ""
    if point["collapse_at"] is not None:
        counts = [count for count in data.edit_counts if count < point["collapse_at"]]
        between = f" The last count measured before it: {counts[-1]:,}." if counts else ""
        edits = "1 edit" if point["collapse_at"] == 1 else f"{point['collapse_at']:,} edits"
        return f"collapsed at {edits}, by {point['reason']}.", f"{_sentence(point['detail'])}{between}{failed}"
    if point["measured_up_to"] is None:
        return "was not measured after any edit.", failed.strip() or "No checkpoint has been measured yet."
    kept = [
        f"reliability {100 * at_end['reliability']:.1f} %" if at_end["reliability"] is not None else "",
        f"capability {100 * at_end['capability']:.1f} %" if at_end["capability"] is not None else "",
        f"{100 * at_end['base_capability']:.1f} % before editing" if at_end["base_capability"] is not None else "",
    ]
    numbers = _sentence(", ".join(filter(None, kept))) if any(kept) else ""
    return f"did not collapse up to {point['measured_up_to']:,} edits.", f"{numbers}{failed}".strip()


def leaderboards(data: RunData) -> str:
    """The paper's table, once a protocol."""
    return "\n".join(
        f'<div data-protocol="{protocol}">{_leaderboard(data, protocol)}</div>' for protocol in data.protocols
    )


def all_points(data: RunData) -> str:
    """The same numbers at every edit count, once a protocol."""
    tables = []
    for protocol in data.protocols:
        rows = [
            _cells(data, index, line, count, protocol)
            for index, line in enumerate(data.lines)
            for count in _counts(data, line)
        ]
        tables.append(f'<div data-protocol="{protocol}">{table(_HEADINGS, rows)}</div>')
    return "\n".join(tables)


_HEADINGS = (
    "Method",
    "Edits",
    "Reliability",
    "Generalization",
    "Locality",
    "Portability",
    "Capability",
    "Perplexity ×",
)


def _leaderboard(data: RunData, protocol: str) -> str:
    rows = []
    for index, line in enumerate(data.lines):
        row = data.one(line, "leaderboard") or {}
        count, seconds = row["edit_count"], row["seconds_per_edit"]
        cells = _cells(data, index, line, count, protocol) if count is not None else [key(index, line), *[DASH] * 7]
        broke = DASH if count is None else "none" if row["collapse_at"] is None else f"{row['collapse_at']:,}"
        reason = f"<small>{escape(row['collapse_reason'])}</small>" if row["collapse_reason"] else ""
        rows.append([*cells, DASH if seconds is None else rounded(seconds), broke + reason])
    return table((*_HEADINGS, "Seconds an edit", "Collapse at"), rows)


def _cells(data: RunData, index: int, line: Line, count: int, protocol: str) -> list[str]:
    cells = [key(index, line), "base" if count == 0 else f"{count:,}"]
    for measure in ("reliability", "generalization", "locality", "portability"):
        row = data.one(line, "reliability_by_edit_count", measure=measure, protocol=protocol, edit_count=count)
        cells.append(percent(row["value"], row["low"], row["high"]) if row else DASH)
    mean = data.one(line, "capability_by_edit_count", task="mean", edit_count=count)
    cells.append(percent(mean["value"], mean["low"], mean["high"]) if mean else DASH)
    text = data.one(line, "perplexity_by_edit_count", edit_count=count)
    return [*cells, rounded(text["ratio"]) if text and text["ratio"] is not None else DASH]


def _counts(data: RunData, line: Line) -> list[int]:
    views = ("reliability_by_edit_count", "capability_by_edit_count", "perplexity_by_edit_count")
    return sorted({row["edit_count"] for view in views for row in data.of(line, view)})


def capability(data: RunData) -> str:
    """Every benchmark at every edit count at which it was run; of a group its score, and not each of its tasks."""
    whole = (row["task"] for row in data.views["capability_by_edit_count"] if row["part_of"] is None)
    names = sorted(set(whole) - {"mean"})
    if not names:
        return "<p>No general benchmark was run.</p>"
    rows = []
    for index, line in enumerate(data.lines):
        for count in sorted({row["edit_count"] for row in data.of(line, "capability_by_edit_count")}):
            found = {row["task"]: row for row in data.of(line, "capability_by_edit_count", edit_count=count)}
            cells = [
                percent(row["value"], row["low"], row["high"]) if (row := found.get(name)) else DASH
                for name in ("mean", *names)
            ]
            rows.append([key(index, line), "base" if count == 0 else f"{count:,}", *cells])
    return table(("Method", "Edits", "Mean", *names), rows)


def costs(data: RunData) -> str:
    """Seconds and memory of the editing steps."""
    rows = [
        [
            key(index, line),
            f"{row['edit_count']:,}",
            rounded(row["edits"]) or DASH,
            rounded(row["seconds"]) or DASH,
            rounded(row["seconds_per_edit"]) or DASH,
            rounded(row["edits_per_second"]) or DASH,
            DASH if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 2**20:,.0f} MiB",
        ]
        for index, line in enumerate(data.lines)
        for row in data.of(line, "cost_per_edit")
    ]
    names = ("Method", "Up to edit", "Edits in the step", "Seconds", "Seconds an edit", "Edits a second", "Peak memory")
    return table(names, rows) if rows else "<p>No editing step was timed.</p>"


def samples(data: RunData) -> str:
    """A few edit prompts with each method's answer."""
    asked: dict[tuple[int, str], list[Row]] = {}
    for row in data.samples:
        asked.setdefault((row["position"], row["prompt"]), []).append(row)
    rows = []
    for (position, prompt), answers in asked.items():
        cells = [f"{position:,}", _long(prompt), _long(answers[0]["target"])]
        for line in data.lines:
            answer = next((a for a in answers if (a["trajectory"], a["order_seed"]) == line[:2]), None)
            cells.append(_answer(answer) if answer else DASH)
        rows.append(cells)
    headings = ("Edit", "Prompt", "New fact", *(line.name for line in data.lines))
    return table(headings, rows, text_columns=len(headings)) if rows else "<p>Nothing was generated.</p>"


def _answer(row: Row) -> str:
    text = _long(row["output"]) if (row["output"] or "").strip() else "<em>empty</em>"
    if row["score"] is None:
        return text
    return f'{text} <span class="{"right" if row["score"] else "wrong"}">{"✓" if row["score"] else "✗"}</span>'


def _long(text: str | None) -> str:
    shown = (text or "").strip()
    return escape(shown if len(shown) <= 160 else f"{shown[:159]}…") if shown else DASH


def sql(run: str) -> str:
    """The queries of the page and the views that they read."""
    literal = run.replace("'", "''")
    reads = "\n".join(f"SELECT * FROM {view} WHERE run = '{literal}';" for view in VIEWS)
    parts = [
        ("Queries", reads),
        ("Samples", SAMPLES.strip()),
        ("Updates", UPDATES.strip()),
        *((view, view_sql(view).strip()) for view in (*VIEWS, *_BENEATH)),
    ]
    return "\n".join(f"<h3>{escape(name)}</h3><pre>{escape(text)}</pre>" for name, text in parts)


def configuration(data: RunData) -> str:
    """The run's configuration, each method's own, and the versions, as stored."""
    if not data.runs:
        return "<p>Not stored yet: the run has not ended.</p>"
    first = data.runs[0]
    parts = {"Configuration": first["config"], "Versions": first["versions"]}
    parts |= {f"{row['label']} (order {row['order_seed']})": row["method_config"] for row in data.runs}
    return "\n".join(f"<h3>{escape(str(name))}</h3><pre>{escape(_pretty(text))}</pre>" for name, text in parts.items())


def _pretty(text: Any) -> str:
    try:
        return json.dumps(json.loads(text or "null"), indent=1, ensure_ascii=False)
    except json.JSONDecodeError:  # shown as it is
        return str(text)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
