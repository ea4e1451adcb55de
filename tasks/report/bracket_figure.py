"""The picture of a search for the collapse: how many edits each method takes, with its bracket."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from overedit.tasks.report.data import RunData
from overedit.tasks.report.formatting import shown_bracket


def draw_brackets(figure: Figure, data: RunData, colors: Sequence[str]) -> None:
    """Draw a line for each searched trajectory, most edits first: a dot where it has likely collapsed, and the bracket.

    Args:
        figure: Gets the picture.
        data: The run's rows.
        colors: The trajectories' colors.
    """
    rows = [(trajectory, data.of(trajectory, "collapse_search", rank=1)) for trajectory in data.trajectories]
    found = sorted(
        ((trajectory, searched[0]) for trajectory, searched in rows if searched), key=lambda each: -each[1]["takes"]
    )
    figure.set_size_inches(7.5, 1.3 + 0.42 * len(found))
    axis = figure.subplots()
    for index, (trajectory, row) in enumerate(found):
        color = colors[trajectory.color % len(colors)]
        low, takes = max(row["last_good"], 0.5), max(row["takes"], 0.5)
        if row["collapse_at"] is None:
            axis.annotate("", (takes * 1.6, index), (takes, index), arrowprops={"arrowstyle": "->", "color": color})
        high = row["collapse_at"] or takes
        axis.plot([low, high], [index, index], color=color, lw=5, alpha=0.35, solid_capstyle="butt")
        axis.plot([takes], [index], "o", color=color, ms=7)
        axis.annotate(shown_bracket(row), (high, index), (12, 0), textcoords="offset points", va="center", fontsize=9)
    axis.set_yticks(range(len(found)), [trajectory.name for trajectory, _ in found])
    axis.invert_yaxis()
    axis.margins(x=0.35, y=0.25)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("edits")
    about, row = data.views["leaderboard"][0], found[0][1]
    figure.suptitle(
        f"{about['model']} on {about['dataset']}: edits before collapse ({row['definition']}, {row['confidence']:.0%})",
        fontsize=10,
        color="#4a4f57",
    )
