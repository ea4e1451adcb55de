"""The main tables and sentences of the report as HTML; everything from the data is escaped here."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from overedit.tasks.report import queries
from overedit.tasks.report.data import Row, RunData, Trajectory, is_of
from overedit.tasks.report.formatting import rounded, shown_bracket
from overedit.tasks.report.html import DASH, base_or, by_view, key, percent, protocol_name, table
from overedit.tasks.report.page_data import cut, mark
from overedit.tasks.warehouse.views import literal, query_sql, view_sql


def verdicts(data: RunData) -> str:
    """A list item per trajectory: the edit count and criterion of its collapse, or how far it got without."""
    return "\n".join(
        f'<li style="--color:var(--c{trajectory.color % 10})"><strong>{escape(trajectory.name)}</strong>'
        f"<b>{escape(headline)}</b><span>{escape(detail)}</span></li>"
        for trajectory in data.trajectories
        for headline, detail in [verdict(data, trajectory)]
    )


def verdict(data: RunData, trajectory: Trajectory) -> tuple[str, str]:
    """A sentence on a trajectory's collapse, and the numbers behind it."""
    point, at_end = data.one(trajectory, "collapse_point"), data.one(trajectory, "leaderboard")
    assert point is not None and at_end is not None
    failed = f" Its run failed: {point['error']}" if point["status"] == "failed" else ""
    if point["confidence"] is not None:
        return _bracket_in_words(point, failed)
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


def _bracket_in_words(point: Row, failed: str) -> tuple[str, str]:
    """The answer of a search for the collapse, and how sure it is."""
    if point["collapse_at"] is None:
        good = f"It is surely good up to {point['last_good']:,}." if point["last_good"] < point["takes"] else ""
        return f"takes {shown_bracket(point)} edits.", f"The search went no further. {good}{failed}".strip()
    sure = f"The bracket holds the collapse point ({point['reason']}) with {point['confidence']:.0%} confidence."
    why = f"At {point['collapse_at']:,}: {point['detail'] or 'weights that are not finite'}. "
    return f"takes {shown_bracket(point)} edits.", f"{why}{sure}{failed}"


def leaderboards(data: RunData) -> str:
    """The paper's table for each protocol, and the measures of each preset at the same edit counts."""
    of_protocols = [by_view(name, protocol_name(name), _leaderboard(data, name)) for name in data.protocols]
    return "\n".join(
        [*of_protocols, *(by_view(f"preset {name}", f"As in {name}", _preset(data, name)) for name in data.presets)]
    )


def all_points(data: RunData) -> str:
    """The numbers of the leaderboards at every edit count."""
    tables = []
    for protocol in data.protocols:
        rows = [
            _cells(data, trajectory, count, protocol)
            for trajectory in data.trajectories
            for count in _counts(data, trajectory)
        ]
        tables.append(by_view(protocol, protocol_name(protocol), table(_HEADINGS, rows)))
    every = [by_view(f"preset {name}", f"As in {name}", _preset(data, name, last=False)) for name in data.presets]
    return "\n".join([*tables, *every])


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
    for trajectory in data.trajectories:
        row = data.one(trajectory, "leaderboard") or {}
        count, seconds = row["edit_count"], row["seconds_per_edit"]
        cells = _cells(data, trajectory, count, protocol) if count is not None else [key(trajectory), *[DASH] * 7]
        collapse_at = DASH if count is None else "none" if row["collapse_at"] is None else f"{row['collapse_at']:,}"
        if row["collapse_confidence"] is not None:
            collapse_at = shown_bracket(row)
        reason = f"<small>{escape(row['collapse_reason'])}</small>" if row["collapse_reason"] else ""
        rows.append([*cells, DASH if seconds is None else rounded(seconds), collapse_at + reason])
    return table((*_HEADINGS, "Seconds an edit", "Collapse at"), rows, text_columns=(0, len(_HEADINGS) + 1))


def _preset(data: RunData, preset: str, *, last: bool = True) -> str:
    rows = [row for row in data.views["preset_scores"] if row["preset"] == preset]
    units = {row["measure"]: row["unit"] for row in rows}
    cells = []
    for trajectory in data.trajectories:
        counts = sorted({row["edit_count"] for row in rows if is_of(row, trajectory)})
        for count in counts[-1:] if last else counts:
            found = {
                row["measure"]: row for row in data.of(trajectory, "preset_scores", preset=preset, edit_count=count)
            }
            cells.append([key(trajectory), base_or(count), *(_preset_cell(found.get(measure)) for measure in units)])
    headings = [
        f"{measure.replace('_', ' ').capitalize()}{'' if unit == 'share' else f', {unit}'}"
        for measure, unit in units.items()
    ]
    return table(("Method", "Edits", *headings), cells)


def _preset_cell(row: Row | None) -> str:
    if row is None or row["value"] is None:
        return f"{DASH}<small>{escape(row['reason'])}</small>" if row and row["reason"] else DASH
    if row["unit"] == "share":
        return percent(row["value"], row["low"], row["high"])
    bounds = "" if row["low"] is None else f"<small>{rounded(row['low'])} to {rounded(row['high'])}</small>"
    return f"{rounded(row['value'])}{bounds}"


def _cells(data: RunData, trajectory: Trajectory, count: int, protocol: str) -> list[str]:
    cells = [key(trajectory), base_or(count)]
    for measure in ("reliability", "generalization", "locality", "portability"):
        row = data.one(trajectory, "reliability_by_edit_count", measure=measure, protocol=protocol, edit_count=count)
        cells.append(percent(row["value"], row["low"], row["high"]) if row else DASH)
    mean = data.one(trajectory, "capability_by_edit_count", task="mean", edit_count=count)
    cells.append(percent(mean["value"], mean["low"], mean["high"]) if mean else DASH)
    text = data.one(trajectory, "perplexity_by_edit_count", edit_count=count)
    return [*cells, rounded(text["ratio"]) if text and text["ratio"] is not None else DASH]


def _counts(data: RunData, trajectory: Trajectory) -> list[int]:
    views = ("reliability_by_edit_count", "capability_by_edit_count", "perplexity_by_edit_count")
    return sorted({row["edit_count"] for view in views for row in data.of(trajectory, view)})


def capability(data: RunData) -> str:
    """The score of every benchmark for the pristine model and at each last edit count; other edit counts are folded.

    A group of tasks is shown by its own score.
    """
    whole = (row["task"] for row in data.views["capability_by_edit_count"] if row["part_of"] is None)
    names = sorted(set(whole) - {"mean"})
    if not names:
        return "<p>No general benchmark was run.</p>"
    every: list[list[str]] = []
    last: list[list[str]] = []
    for trajectory in data.trajectories:
        for count in sorted({row["edit_count"] for row in data.of(trajectory, "capability_by_edit_count")}):
            found = {row["task"]: row for row in data.of(trajectory, "capability_by_edit_count", edit_count=count)}
            scores = [
                percent(row["value"], row["low"], row["high"]) if (row := found.get(name)) else DASH
                for name in ("mean", *names)
            ]
            every.append([key(trajectory), base_or(count), *scores])
            if count == 0 and not last:
                last.append(["Pristine model", base_or(count), *scores])
        if every and every[-1][0] == key(trajectory) and every[-1][1] != base_or(0):
            last.append(every[-1])
    headings = ("Method", "Edits", "Mean", *names)
    return f"{table(headings, last)}<details><summary>Every edit count</summary>{table(headings, every)}</details>"


def costs(data: RunData) -> str:
    """Seconds and peak memory of the editing steps."""
    rows = [
        [
            key(trajectory),
            f"{row['edit_count']:,}",
            rounded(row["edits"]) or DASH,
            rounded(row["seconds"]) or DASH,
            rounded(row["seconds_per_edit"]) or DASH,
            rounded(row["edits_per_second"]) or DASH,
            DASH if row["peak_memory_bytes"] is None else f"{row['peak_memory_bytes'] / 2**20:,.0f} MiB",
        ]
        for trajectory in data.trajectories
        for row in data.of(trajectory, "cost_per_edit")
    ]
    names = ("Method", "Up to edit", "Edits in the step", "Seconds", "Seconds an edit", "Edits a second", "Peak memory")
    return table(names, rows) if rows else "<p>No editing step was timed.</p>"


def samples(data: RunData) -> str:
    """The edit prompts of a few cases, with the answer of each trajectory at its last edit count."""
    asked: dict[str, list[Row]] = {}
    for row in data.cases:
        if row["probe"] == "edit" and row["method"] != "none":
            asked.setdefault(row["case_id"], []).append(row)
    rows = []
    for answers in asked.values():
        first = answers[0]
        cells = [f"{first['edit_number']:,}", _shown(first["prompt"]), _shown(first["target"])]
        for trajectory in data.trajectories:
            own = [answer for answer in answers if is_of(answer, trajectory)]  # sorted by edit count
            cells.append(_answer(own[-1]) if own else DASH)
        rows.append(cells)
    headings = ("Edit", "Prompt", "New fact", *(trajectory.name for trajectory in data.trajectories))
    return table(headings, rows, text_columns=range(len(headings))) if rows else "<p>Nothing was generated.</p>"


def _answer(row: Row) -> str:
    text = _shown(row["output"]) if (row["output"] or "").strip() else "<em>empty</em>"
    is_right = mark(row)
    if is_right is None:
        return text
    return f'{text} <span class="{"right" if is_right else "wrong"}">{"✓" if is_right else "✗"}</span>'


def _shown(text: str | None) -> str:
    return escape(cut(text)) or DASH


def sql(run: str) -> str:
    """The queries of the page, and the views that they read."""
    selects = "\n".join(f"SELECT * FROM {view} WHERE run = {literal(run)};" for view in queries.VIEWS)
    parts = [
        ("Queries", selects),
        *(
            (name.capitalize(), query_sql(f"report/{name}").strip())
            for name in ("cases", "updates", "checkpoints", "stages")
        ),
        *((view, view_sql(view).strip()) for view in (*queries.VIEWS, *queries.SOURCES)),
    ]
    return "\n".join(f"<h3>{escape(name)}</h3><pre>{escape(text)}</pre>" for name, text in parts)


def configuration(data: RunData) -> str:
    """The stored configuration of the run, the versions, and the configuration of each method."""
    if not data.runs:
        return "<p>Not stored yet: the run has not ended.</p>"
    first = data.runs[0]
    parts = {"Configuration": first["config"], "Versions": first["versions"]}
    parts |= {f"{row['label']} (order {row['order_seed']})": row["method_config"] for row in data.runs}
    return "\n".join(f"<h3>{escape(str(name))}</h3><pre>{escape(_pretty(text))}</pre>" for name, text in parts.items())


def _pretty(text: Any) -> str:
    try:
        return json.dumps(json.loads(text or "null"), indent=1, ensure_ascii=False)
    except json.JSONDecodeError:  # shown unchanged
        return str(text)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
