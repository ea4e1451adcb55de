"""Heat maps of sites, a column per part and a row per layer: their numbers and colors, and the picture as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from overedit.tasks.locate.options import SEARCHED
from overedit.tasks.locate.ranking import MEASURES, Ranking
from overedit.tasks.storage.working_copy import replace_file

Row = dict[str, Any]

NAMES = {
    "score": "Score",
    "reliability": "Reliability",
    "generalization": "Generalization",
    "locality": "Locality",
    "capability_kept": "Capability kept",
}
"""Column of `site_ranking` -> its title."""

_STEP = 0.05  # the limits of a map's colors are multiples of it
_DARK_INK, _LIGHT_INK = "#101418", "#ffffff"


class HeatMap(NamedTuple):
    """One measure over layers and parts."""

    title: str
    layers: list[int]
    parts: list[str]
    values: list[list[float | None]]
    """A list per layer, a number per part; None where the site has none."""
    low: float
    """The value of the darkest color."""
    high: float
    """The value of the lightest color."""

    def shade(self, value: float) -> float:
        """A value's place between the darkest and the lightest color."""
        return (value - self.low) / (self.high - self.low)

    def colors(self, value: float) -> tuple[str, str]:
        """The color of a value, and one that can be read on it, as hexadecimal codes."""
        shade = self.shade(value)
        return mpl.colors.to_hex(mpl.colormaps["viridis"](shade)), _DARK_INK if shade > 0.55 else _LIGHT_INK


def heat_maps(rows: Sequence[Row]) -> list[HeatMap]:
    """The maps of the score and of each measure that some site has.

    Args:
        rows: Rows of `site_ranking` of one split and protocol.
    """
    layers = sorted({row["layer"] for row in rows})
    order = {part: place for place, part in enumerate(SEARCHED)}
    parts = sorted({row["part"] for row in rows}, key=lambda part: (order.get(part, len(order)), part))
    of_site = {(row["layer"], row["part"]): row for row in rows}
    found = []
    for measure in ("score", *MEASURES):
        numbers = [row[measure] for row in rows if row[measure] is not None]
        if numbers:
            low, high = math.floor(_steps(min(numbers))) * _STEP, math.ceil(_steps(max(numbers))) * _STEP
            values = [[of_site.get((layer, part), {}).get(measure) for part in parts] for layer in layers]
            found.append(HeatMap(NAMES[measure], layers, parts, values, low, max(high, low + _STEP)))
    return found


def _steps(value: float) -> float:
    return round(value / _STEP, 6)  # 0.7 / 0.05 is a little less than 14


def save_picture(ranking: Ranking, path: Path) -> None:
    """Write the heat maps as PNG; the same rows give the same bytes.

    Args:
        ranking: At least one of its sites has a score.
        path: The file; its folder is made if needed.
    """
    maps = heat_maps(ranking.validation)
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 9}):
        height = 1.6 + 0.3 * len(maps[0].layers)
        figure = Figure(figsize=(2.9 * len(maps), height), dpi=160, layout="constrained")
        FigureCanvasAgg(figure)
        for axis, heat in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps, strict=True):
            _draw(axis, heat)
        about = ranking.validation[0]
        title = f"{about['label']} on {about['model']}, {about['edit_count']:,} edits of {about['dataset']}"
        figure.suptitle(f"{title}, {ranking.protocol.replace('_', '-')} protocol", fontsize=10, color="#4a4f57")
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None}, facecolor="white")
    with replace_file(path) as file:
        file.write(stream.getvalue())


def _draw(axis: Axes, heat: HeatMap) -> None:
    shown = [[math.nan if value is None else value for value in row] for row in heat.values]
    axis.imshow(shown, vmin=heat.low, vmax=heat.high, cmap="viridis", aspect="auto")
    for y, row in enumerate(heat.values):
        for x, value in enumerate(row):
            if value is not None:
                axis.text(x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=heat.colors(value)[1])
    axis.set_xticks(range(len(heat.parts)), heat.parts, rotation=45, ha="right", fontsize=7)
    axis.set_yticks(range(len(heat.layers)), [str(layer) for layer in heat.layers], fontsize=7)
    axis.set_title(heat.title, fontsize=10, fontweight="bold", loc="left")
    axis.set_ylabel("layer", fontsize=8)
