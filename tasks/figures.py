"""The collapse curve as a picture: one panel a measure, one line a method, from the pristine model to the last edit."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tasks.atomic_files import replace_file
from tasks.report_data import Row, RunData, collect
from tasks.warehouse import Warehouse

COLORS = ("#2f6fd6", "#d9772b", "#2a9166", "#b8458f", "#7a62d3", "#a3801a", "#1b8fa6", "#c2474b")
"""One a method, told apart by people with the common colour blindnesses as well; the report has the same."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


class Panel(NamedTuple):
    """A measure, and where its rows are."""

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
    "svg.hashsalt": "overedit",
}


def save_curve_png(warehouse: Warehouse, run: str, path: Path, *, protocol: str = "generated") -> Path:
    """Write the collapse curve of a run as a PNG (1,920 pixels wide).

    Raises:
        ValueError: The run is not in the warehouse.
    """
    return save_curve(collect(warehouse, run), path, protocol=protocol)


def save_curve(data: RunData, path: Path, *, protocol: str = "generated") -> Path:
    """As `save_curve_png`, from rows that are there already."""
    with replace_file(path) as stream:
        stream.write(_picture(data, protocol, "png"))
    return path


def curve_svg(data: RunData, *, protocol: str = "generated") -> bytes:
    """The collapse curve as SVG."""
    return _picture(data, protocol, "svg")


def curve_data_uri(data: RunData, *, protocol: str = "generated") -> str:
    """The collapse curve as a `data:` URI, for pages and artifacts that can load nothing."""
    return f"data:image/png;base64,{base64.b64encode(_picture(data, protocol, 'png')).decode()}"


def _picture(data: RunData, protocol: str, format: str) -> bytes:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12, 3.9), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(PANELS), sharey=True)
        for axis, panel in zip(axes, PANELS, strict=True):
            _draw_panel(axis, data, panel, protocol)
        axes[0].set_ylim(-0.03, 1.03)
        axes[0].yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        figure.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=min(5, len(data.lines)),
            frameon=False,
        )
        about = data.views["leaderboard"][0]
        figure.suptitle(
            f"{about['model']} on {about['dataset']}, {protocol.replace('_', '-')} protocol "
            "(shaded: 95 % intervals; ringed: collapse)",
            fontsize=10,
            color="#4a4f57",
        )
        stream = io.BytesIO()
        metadata = {"Date": None} if format == "svg" else {"Software": None}  # the same rows, the same bytes
        figure.savefig(stream, format=format, metadata=metadata, facecolor="white")
    return stream.getvalue()


def _draw_panel(axis: Axes, data: RunData, panel: Panel, protocol: str) -> None:
    values = panel.values | ({"protocol": protocol} if "measure" in panel.values else {})
    for index, line in enumerate(data.lines):
        rows = [row for row in data.of(line, panel.view, **values) if row["value"] is not None]
        collapse = data.one(line, "collapse_point")
        _draw_line(axis, rows, index, line.name, collapse["collapse_at"] if collapse else None)
    axis.set_title(panel.title, fontsize=11, fontweight="bold", loc="left")
    axis.set_xscale("symlog", linthresh=1, linscale=0.5)
    ticks = _ticks(data)
    axis.set_xticks(ticks, ["base" if tick == 0 else f"{tick:,}" for tick in ticks])
    axis.set_xticks([], minor=True)
    axis.set_xlim(-0.12, max(ticks[-1], 1) * 1.25)
    axis.set_xlabel("edits")
    axis.set_axisbelow(True)


def _draw_line(axis: Axes, rows: list[Row], index: int, name: str, collapse_at: int | None) -> None:
    color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
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
