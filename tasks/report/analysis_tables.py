"""The report's tables of analyses as HTML; a table whose view has no rows is empty."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any, NamedTuple

from overedit.tasks.report.data import Row, RunData, Trajectory, is_of
from overedit.tasks.report.formatting import rounded
from overedit.tasks.report.html import DASH, base_or, by_view, key, percent, protocol_name, table

Cell = Callable[[Row], str]

STAGES = ("edit", "engine_start", "swap", "generate", "score", "perplexity", "capability")
"""The stages in the order of a run, which is also the order of the bars' colors."""


class Column(NamedTuple):
    """A column: its heading, and the cell that it makes of a row."""

    heading: str
    cell: Cell
    is_text: bool = False


def number(name: str) -> Cell:
    """The cell of a number."""
    return lambda row: DASH if row[name] is None else rounded(row[name])


def text(name: str) -> Cell:
    """The cell of a text."""
    return lambda row: escape(str(row[name])) if row[name] is not None else DASH


def share(name: str, *bounds: str) -> Cell:
    """The cell of a share in percent, with its interval below."""
    return lambda row: percent(row[name], *(row[bound] for bound in bounds))


def coefficient(name: str) -> Cell:
    """The cell of a correlation."""
    return lambda row: DASH if row[name] is None else f"{row[name]:.2f}"


def probability(name: str) -> Cell:
    """The cell of a p value."""
    return lambda row: DASH if row[name] is None else "&lt; 0.001" if row[name] < 0.001 else f"{row[name]:.3f}"


CHANGE = (
    Column("Edits", lambda row: base_or(row["edit_count"])),
    Column("Task", text("task"), is_text=True),
    Column("Items", number("n")),
    Column("Before", share("base_value")),
    Column("After", share("value")),
    Column("Difference", share("difference", "low", "high")),
    Column("Lost", number("num_lost")),
    Column("Gained", number("num_gained")),
    Column("p", probability("p_value")),
    Column("p, adjusted", probability("p_adjusted")),
)
HALF_LIFE = (
    Column("Edits", lambda row: base_or(row["edit_count"])),
    Column("Newest edits", share("newest")),
    Column("Half-life, edits", number("half_life")),
    Column("Or", text("reason"), is_text=True),
)
CORRELATION = (
    Column("Methods", text("method"), is_text=True),
    Column("Sign", text("probe"), is_text=True),
    Column("Points", number("num_points")),
    Column("Spearman", coefficient("spearman")),
    Column("95 %", lambda row: DASH if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"),
    Column("Pearson", coefficient("pearson")),
    Column("Why none", text("reason"), is_text=True),
)


def collapse_definitions(data: RunData) -> str:
    """The collapse of each trajectory (rows) by each definition (columns)."""
    definitions = list(dict.fromkeys(row["definition"] for row in data.views["collapse_definitions"]))
    cells = [
        [
            key(trajectory),
            *(_collapse(data.one(trajectory, "collapse_definitions", definition=name)) for name in definitions),
        ]
        for trajectory in data.trajectories
    ]
    headings = ("Method", *(name.replace("_", " ") for name in definitions))
    return table(headings, cells, text_columns=range(len(headings))) if definitions else ""


def _collapse(row: Row | None) -> str:
    if row is None:
        return DASH
    at = "none" if row["collapse_at"] is None else f"{row['collapse_at']:,}"
    good = "" if row["last_good"] is None else f"last good: {row['last_good']:,}"
    return at + "".join(f"<small>{escape(note)}</small>" for note in (good, row["detail"]) if note)


def capability_change(data: RunData) -> str:
    """The items that each trajectory lost and gained by its last checkpoint; other edit counts are folded."""
    rows = data.views["capability_change"]
    at_end = [row for trajectory in data.trajectories for row in data.at_end(trajectory, "capability_change")]
    whole = [row for row in at_end if row["task"] == "all"]
    every = f"<details><summary>Every task and edit count</summary>{_by_trajectory(data, rows, CHANGE)}</details>"
    return _by_trajectory(data, whole or at_end, CHANGE) + every if rows else ""


def half_life(data: RunData) -> str:
    """The half-life of edits at the last edit count, for each protocol."""
    parts = []
    for protocol in data.protocols:
        rows = [row for row in data.views["retention_half_life"] if row["protocol"] == protocol]
        last = max((row["edit_count"] for row in rows), default=0)
        content = _by_trajectory(data, [row for row in rows if row["edit_count"] == last], HALF_LIFE)
        parts.append(by_view(protocol, protocol_name(protocol), content) if content else "")
    return "\n".join(filter(None, parts))


def warnings(data: RunData) -> str:
    """The verdict of each warning rule (rows) on each trajectory (columns)."""
    rows = data.views["early_warning"]
    if not rows:
        return ""
    rules = dict.fromkeys((row["rule"], row["probe"], row["threshold"]) for row in rows)
    cells = [
        [
            escape(str(rule)),
            *(_warning(data, trajectory, rule=rule, probe=probe, threshold=limit) for trajectory in data.trajectories),
        ]
        for rule, probe, limit in rules
    ]
    return table(
        ("Rule", *(trajectory.name for trajectory in data.trajectories)),
        cells,
        text_columns=range(len(data.trajectories) + 1),
    )


def _warning(data: RunData, trajectory: Trajectory, **rule: Any) -> str:
    row = data.one(trajectory, "early_warning", **rule)
    if row is None:
        return DASH
    at = "" if row["warned_at"] is None else f"<small>at {row['warned_at']:,}</small>"
    return f"{escape(row['verdict'] or 'not measured')}{at}"


def correlation(data: RunData) -> str:
    """The correlation of each probe with capability over all methods; single methods are folded."""
    rows = data.views["probe_correlation"]
    cells = {
        is_all: [[column.cell(row) for column in CORRELATION] for row in rows if (row["method"] == "all") == is_all]
        for is_all in (True, False)
    }
    alone = _table(CORRELATION, cells[False])
    folded = f"<details><summary>Each method by itself</summary>{alone}</details>" if alone else ""
    return _table(CORRELATION, cells[True]) + folded


def correlation_sentence(data: RunData) -> str:
    """The correlation of perplexity with capability over all methods, for the scatter's caption."""
    for row in data.views["probe_correlation"]:
        if row["method"] == "all" and "perplexity" in row["probe"] and row["spearman"] is not None:
            interval = "" if row["low"] is None else f" (95 %: {row['low']:.2f} to {row['high']:.2f})"
            return (
                f"Spearman's correlation with the kept share of capability over all methods: {row['spearman']:.2f}"
                f"{interval}, {row['num_points']:,} checkpoints of {row['num_trajectories']:,} trajectories."
            )
    return ""


def gating(data: RunData) -> str:
    """The savings and misses of each gate ratio (rows) for each trajectory (columns)."""
    ratios = list(dict.fromkeys(row["gate_ratio"] for row in data.views["capability_gating"]))
    cells = [
        [
            f"× {ratio:g}",
            *(_gated(data.one(trajectory, "capability_gating", gate_ratio=ratio)) for trajectory in data.trajectories),
        ]
        for ratio in ratios
    ]
    headings = ("Gate", *(trajectory.name for trajectory in data.trajectories))
    return table(headings, cells, text_columns=range(len(headings))) if ratios else ""


def _gated(row: Row | None) -> str:
    if row is None:
        return DASH
    missed = "misses not known" if row["num_misses"] is None else f"{row['num_misses']} missed"
    at, gated = (f"{row[name]:,}" if row[name] is not None else "none" for name in ("collapse_at", "collapse_at_gated"))
    collapse = f"collapse still at {at}" if at == gated else f"collapse at {gated} instead of {at}"
    return f"{row['num_skipped']} of {row['num_counts']} skipped<small>{missed}</small><small>{collapse}</small>"


def stages(data: RunData) -> str:
    """The seconds of each stage of each trajectory, as a bar and as numbers."""
    seconds = {
        trajectory: {row["stage"]: row["seconds"] or 0.0 for row in data.stages if is_of(row, trajectory)}
        for trajectory in data.trajectories
    }
    present = [stage for stage in STAGES if any(stage in own for own in seconds.values())]
    longest = max((sum(own.values()) for own in seconds.values()), default=0.0)
    if not longest:
        return ""
    rows = [
        [
            key(trajectory),
            _bar(own, present, longest),
            *(rounded(own[stage]) if stage in own else DASH for stage in present),
            rounded(sum(own.values())),
        ]
        for trajectory, own in seconds.items()
    ]
    legend = " ".join(
        f'<span><i style="background:var(--s{STAGES.index(stage)})"></i>{_stage(stage)}</span>' for stage in present
    )
    headings = ("Method", "Share of the longest", *(_stage(stage) for stage in present), "All, seconds")
    return f'<p class="legend">{legend}</p>{table(headings, rows)}'


def _bar(seconds: dict[str, float], present: list[str], longest: float) -> str:
    parts = "".join(
        f'<i style="width:{100 * seconds[stage] / longest:.2f}%;background:var(--s{STAGES.index(stage)})" '
        f'title="{_stage(stage)}: {rounded(seconds[stage])} s"></i>'
        for stage in present
        if stage in seconds
    )
    return f'<span class="bar">{parts}</span>'


def _stage(stage: str) -> str:
    return stage.replace("_", " ").capitalize()


def retention_tables(data: RunData) -> str:
    """The numbers of the heat map: a table per trajectory, for each protocol."""
    return "\n".join(
        by_view(
            protocol,
            protocol_name(protocol),
            "".join(_retention(data, trajectory, protocol) for trajectory in data.trajectories),
        )
        for protocol in data.protocols
    )


def _retention(data: RunData, trajectory: Trajectory, protocol: str) -> str:
    rows = data.of(trajectory, "retention_by_age", protocol=protocol)
    counts = sorted({row["edit_count"] for row in rows})
    found = {(row["age"], row["edit_count"]): row for row in rows}
    cells = [
        [escape(age), *(_retained(found.get((age, count))) for count in counts)]
        for age in data.ages
        if any((age, count) in found for count in counts)
    ]
    headings = ("Edits since", *(f"{count:,} edits" for count in counts))
    return f'<h3 class="of">{key(trajectory)}</h3>{table(headings, cells)}' if cells else ""


def _retained(row: Row | None) -> str:
    if row is None or row["value"] is None:
        return DASH
    return f"{percent(row['value'])}<small>n {row['n']:,}</small>"


def _by_trajectory(data: RunData, rows: list[Row], columns: tuple[Column, ...]) -> str:
    """A table of the rows of each trajectory, in the order of the leaderboard; empty without rows."""
    method = Column("Method", str, is_text=True)
    shown = [
        [key(trajectory), *(column.cell(row) for column in columns)]
        for trajectory in data.trajectories
        for row in rows
        if is_of(row, trajectory)
    ]
    return _table((method, *columns), shown)


def _table(columns: tuple[Column, ...], rows: list[list[str]]) -> str:
    """A table without the columns that are empty in every row."""
    shown = [index for index in range(len(columns)) if any(row[index] != DASH for row in rows)]
    if not shown:
        return ""
    text_columns = [position for position, index in enumerate(shown) if columns[index].is_text]
    cells = [[row[index] for index in shown] for row in rows]
    return table([columns[index].heading for index in shown], cells, text_columns=text_columns)
