"""A run's pictures for papers: the collapse curve, retention by age, perplexity against capability, and brackets."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from overedit.tasks.report.bracket_figure import draw_brackets
from overedit.tasks.report.data import Row, RunData, Trajectory, collect, is_of
from overedit.tasks.storage.working_copy import replace_file
from overedit.tasks.warehouse.warehouse import Warehouse

COLORS = (
    *("#2f6fd6", "#d9772b", "#2a9166", "#b8458f", "#7a62d3"),
    *("#a3801a", "#1b8fa6", "#c2474b", "#5d6a7b", "#8d5230"),
)
"""The colors of the trajectories, also on the report page; distinct for people with common color blindness."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


class Panel(NamedTuple):
    """A panel of the collapse curve: a measure, and the view with its rows."""

    title: str
    view: str
    values: dict[str, Any]


PANELS = (
    Panel("Reliability", "reliability_by_edit_count", {"measure": "reliability"}),
    Panel("Generalization", "reliability_by_edit_count", {"measure": "generalization"}),
    Panel("Locality", "reliability_by_edit_count", {"measure": "locality"}),
    Panel("Capability", "capability_by_edit_count", {"task": "mean"}),
)
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.grid": True,
    "grid.color": "#e3e6ea",
    "xtick.color": "#4a4f57",
    "ytick.color": "#4a4f57",
}


Draw = Callable[[Figure, RunData, str], None]


def curve_figure(warehouse: Warehouse, run: str, *, protocol: str = "generated") -> Figure:
    """The collapse curve of a run.

    Raises:
        ValueError: The run is not in the warehouse, or was not asked under that protocol.
    """
    data = collect(warehouse, run)
    _check_protocol(data, protocol)
    with mpl.rc_context(dict[Any, Any](_STYLE)):
        figure = Figure(figsize=(12, 3.9), layout="constrained")
        FigureCanvasAgg(figure)
        _draw_curve(figure, data, protocol)
    return figure


def save_figures(data: RunData, page: Path, *, protocol: str = "generated") -> dict[str, Path]:
    """Write the pictures of a run as PNG into the folder of its page.

    Args:
        data: The run's rows.
        page: The report page, which need not exist. The pictures of `demo.html` are `demo.png`, `demo.retention.png`,
            `demo.perplexity-capability.png` and, after a search for the collapse, `demo.brackets.png` in its folder.
        protocol: The protocol under which answers are scored.

    Returns:
        Name -> file; pictures for which the run has no numbers are left out.

    Raises:
        ValueError: The run has no rows under that protocol.
    """
    _check_protocol(data, protocol)
    files = {"collapse-curve": page.with_suffix(".png")}
    _save(_draw_curve, data, protocol, files["collapse-curve"])
    for name, draw, has_rows in (
        ("retention", _draw_retention, bool(data.of_retention(protocol))),
        ("perplexity-capability", _draw_checkpoints, any(row["ratio"] is not None for row in data.checkpoints)),
        ("brackets", lambda figure, data, _: draw_brackets(figure, data, COLORS), bool(data.views["collapse_search"])),
    ):
        if has_rows:
            files[name] = page.with_suffix(f".{name}.png")
            _save(draw, data, protocol, files[name])
    return files


def _check_protocol(data: RunData, protocol: str) -> None:
    if data.protocols and protocol not in data.protocols:
        raise ValueError(
            f"protocol: {protocol!r} was not asked in {data.run}; choose one of {', '.join(data.protocols)}"
        )


def _save(draw: Draw, data: RunData, protocol: str, path: Path) -> None:
    content = _picture(draw, data, protocol)
    with replace_file(path) as stream:
        stream.write(content)


def _picture(draw: Draw, data: RunData, protocol: str) -> bytes:
    return picture(lambda figure: draw(figure, data, protocol))


def picture(draw: Callable[[Figure], None]) -> bytes:
    """What a function draws on a figure in the style of the reports, as PNG; the same drawing has the same bytes."""
    with mpl.rc_context(dict[Any, Any](_STYLE)):
        figure = Figure(figsize=(12, 3.9), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None}, facecolor="white")  # same rows, same bytes
    return stream.getvalue()


def _draw_curve(figure: Figure, data: RunData, protocol: str) -> None:
    axes = figure.subplots(1, len(PANELS), sharey=True)
    for axis, panel in zip(axes, PANELS, strict=True):
        _draw_panel(axis, data, panel, protocol)
    axes[0].set_ylim(-0.03, 1.03)
    axes[0].yaxis.set_major_formatter(_percent)
    _legend(figure, axes[0], data)
    _title(figure, data, f"{protocol.replace('_', '-')} protocol (shaded: 95 % intervals; ringed: collapse)")


def _draw_retention(figure: Figure, data: RunData, protocol: str) -> None:
    """A heat map per trajectory: a column per edit count, a row per number of edits that came after."""
    shown = [
        trajectory for trajectory in data.trajectories if data.of(trajectory, "retention_by_age", protocol=protocol)
    ]
    counts = sorted({row["edit_count"] for row in data.of_retention(protocol)})
    columns = min(4, len(shown))
    height = math.ceil(len(shown) / columns)
    figure.set_size_inches(12, 0.8 + height * (0.9 + 0.28 * len(data.ages)))
    grid = figure.subplots(height, columns, sharex=True, sharey=True, squeeze=False)
    for axis in grid.flat[len(shown) :]:
        axis.set_visible(False)
    norm = mpl.colors.Normalize(0, 1)
    for index, (axis, trajectory) in enumerate(zip(grid.flat, shown, strict=False)):
        _draw_ages(axis, data.of(trajectory, "retention_by_age", protocol=protocol), data.ages, counts, norm)
        axis.tick_params(labelbottom=index + columns >= len(shown))  # the lowest of its column
        axis.set_title(trajectory.name, fontsize=10, fontweight="bold", loc="left")
    bar = figure.colorbar(ScalarMappable(norm, "viridis"), ax=grid, fraction=0.02, pad=0.01, format=_percent)
    bar.set_label("edit prompts right")
    figure.supxlabel("edits", fontsize=9)
    figure.supylabel("edits since", fontsize=9)
    _title(figure, data, f"{protocol.replace('_', '-')} protocol: retention by age")


def _draw_ages(axis: Axes, rows: list[Row], ages: tuple[str, ...], counts: list[int], norm: Any) -> None:
    values = [[math.nan] * len(counts) for _ in ages]
    for row in rows:
        if row["value"] is not None:
            values[ages.index(row["age"])][counts.index(row["edit_count"])] = row["value"]
    axis.imshow(values, norm=norm, cmap="viridis", aspect="auto")
    for row_index, of_age in enumerate(values):
        for column, value in enumerate(of_age):
            if not math.isnan(value):
                ink = "#101418" if value > 0.55 else "white"
                axis.text(column, row_index, f"{100 * value:.0f}", ha="center", va="center", fontsize=6.5, color=ink)
    axis.set_xticks(range(len(counts)), [f"{count:,}" for count in counts], rotation=45, ha="right", fontsize=7)
    axis.set_yticks(range(len(ages)), ages, fontsize=7)
    axis.grid(visible=False)


def _draw_checkpoints(figure: Figure, data: RunData, _: str) -> None:
    """A point per checkpoint, connected in the order of editing."""
    figure.set_size_inches(7, 4.4)
    axis = figure.subplots()
    for index, trajectory in enumerate(data.trajectories):
        rows = [row for row in data.checkpoints if is_of(row, trajectory) and row["ratio"] is not None]
        color, marker = _look(trajectory, index)
        ratios, values = [row["ratio"] for row in rows], [row["value"] for row in rows]
        axis.plot(ratios, values, color=color, marker=marker, ms=5, lw=1, label=trajectory.name)
        collapse = data.one(trajectory, "collapse_point")
        for row in rows:
            if collapse and row["edit_count"] == collapse["collapse_at"]:
                axis.plot(row["ratio"], row["value"], "o", ms=11, mfc="none", mec=color, mew=1.4)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_ylim(-0.03, 1.03)
    axis.yaxis.set_major_formatter(_percent)
    axis.set_xlabel("perplexity over the pristine model's")
    axis.set_ylabel("capability")
    _legend(figure, axis, data, columns=4)
    _title(figure, data, "a point a checkpoint; ringed: collapse")


def _percent(value: float, _: Any = None) -> str:
    return f"{100 * value:.0f} %"


def _look(trajectory: Trajectory, index: int) -> tuple[str, str]:
    return COLORS[trajectory.color % len(COLORS)], MARKERS[index % len(MARKERS)]


def _legend(figure: Figure, axis: Axes, data: RunData, columns: int = 5) -> None:
    handles = axis.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=min(columns, len(data.trajectories)), frameon=False)


def _title(figure: Figure, data: RunData, description: str) -> None:
    about = data.views["leaderboard"][0]
    figure.suptitle(f"{about['model']} on {about['dataset']}, {description}", fontsize=10, color="#4a4f57")


def _draw_panel(axis: Axes, data: RunData, panel: Panel, protocol: str) -> None:
    values = panel.values | ({"protocol": protocol} if "measure" in panel.values else {})
    for index, trajectory in enumerate(data.trajectories):
        rows = [row for row in data.of(trajectory, panel.view, **values) if row["value"] is not None]
        collapse = data.one(trajectory, "collapse_point")
        _draw_line(axis, rows, _look(trajectory, index), trajectory.name, collapse["collapse_at"] if collapse else None)
    axis.set_title(panel.title, fontsize=11, fontweight="bold", loc="left")
    axis.set_xscale("symlog", linthresh=1, linscale=0.5)
    ticks = _ticks(data)
    axis.set_xticks(ticks, ["base" if tick == 0 else f"{tick:,}" for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.set_xlim(-0.12, max((1, *data.edit_counts)) * 1.25)
    axis.set_xlabel("edits")
    axis.set_axisbelow(True)


def _draw_line(axis: Axes, rows: list[Row], look: tuple[str, str], name: str, collapse_at: int | None) -> None:
    color, marker = look
    counts = [row["edit_count"] for row in rows]
    values = [row["value"] for row in rows]
    start = sum(count == 0 for count in counts)
    axis.plot(counts[: start + 1], values[: start + 1], color="#8a8f98", lw=1, ls=":", zorder=2)  # no curve yet
    axis.plot(counts[:start], values[:start], "o", color="#8a8f98", ms=4.5, clip_on=start == 0, zorder=3)
    (drawn,) = axis.plot(
        counts[start:], values[start:], color=color, marker=marker, ms=4.5, lw=1.8, zorder=3, label=name
    )
    drawn.set_clip_on(len(counts) == start)  # an unclipped line of no points has no bounds, and no layout
    bounded = [row for row in rows if row["low"] is not None and row["edit_count"] > 0]
    axis.fill_between(
        [row["edit_count"] for row in bounded],
        [row["low"] for row in bounded],
        [row["high"] for row in bounded],
        color=color,
        alpha=0.13,
        linewidth=0,
    )
    if collapse_at is not None and collapse_at in counts:
        value = values[counts.index(collapse_at)]
        axis.plot([collapse_at], [value], "o", ms=11, mfc="none", mec=color, mew=1.4, clip_on=False, zorder=4)


def _ticks(data: RunData) -> list[int]:
    """0 and the measured edit counts; of more than six, the powers of ten among or between them."""
    counts = [count for count in data.edit_counts if count > 0]
    if len(counts) > 5:
        counts = [10**power for power in range(len(str(counts[-1])))]
    return [0, *counts]
