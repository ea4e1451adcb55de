"""The picture of a search for settings: for each method the objective of each trial, and the best so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from overedit.tasks.report.figures import COLORS, picture
from overedit.tasks.warehouse.tables import Row

_COLUMNS = 4


def tuning_picture(chosen: Sequence[Row], trials: Sequence[Row]) -> bytes:
    """Draw a panel per method, as PNG.

    Args:
        chosen: Rows of `tuned_settings`.
        trials: Rows of `tuning_trials` of the same search.
    """

    def draw(figure: Figure) -> None:
        columns = min(_COLUMNS, len(chosen))
        lines = math.ceil(len(chosen) / columns)
        figure.set_size_inches(3 * columns, 2.7 * lines + 0.5)
        axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        for axis in axes.flat[len(chosen) :]:
            axis.set_visible(False)
        for index, (axis, row) in enumerate(zip(axes.flat, chosen, strict=False)):
            own = [each for each in trials if (each["trajectory"], each["study"]) == (row["trajectory"], row["study"])]
            _draw_search(axis, row, own, COLORS[index % len(COLORS)])
        axes[0][0].set_ylim(-0.03, 1.03)
        figure.supxlabel("trial", fontsize=9)
        figure.supylabel("objective", fontsize=9)
        what = "dots: trials on validation edits; line: best so far; cross: pruned; square: the best on test edits"
        figure.suptitle(f"{what}; dashed: the settings given, on test edits", fontsize=10, color="#4a4f57")

    return picture(draw)


def _draw_search(axis: Axes, chosen: Row, trials: Sequence[Row], color: str) -> None:
    searched = [row for row in trials if row["split"] == "validation" and row["trial"] is not None]
    done = [row for row in searched if row["value"] is not None]
    pruned = [row["trial"] for row in searched if row["value"] is None]
    best = [row for row in searched if row["best"] is not None]
    axis.plot(
        [row["trial"] for row in best], [row["best"] for row in best], color=color, lw=1.4, drawstyle="steps-post"
    )
    axis.plot([row["trial"] for row in done], [row["value"] for row in done], "o", color=color, ms=4, alpha=0.7)
    axis.plot(pruned, [0.0] * len(pruned), "x", color="#8a8f98", ms=4, clip_on=not pruned)
    if chosen["test"] is not None:
        bars = [[chosen["test"] - chosen["test_low"]], [chosen["test_high"] - chosen["test"]]]
        axis.errorbar([chosen["trial"]], [chosen["test"]], yerr=bars, fmt="s", color="#1d2128", ms=4, lw=1)
    if chosen["given_test"] is not None:
        axis.axhline(chosen["given_test"], color="#8a8f98", lw=1, ls="--")
    axis.set_title(chosen["label"], fontsize=10, fontweight="bold", loc="left")
