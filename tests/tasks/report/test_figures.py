"""Figures: all that is drawn lies within the axes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure

from overedit.tasks.report import figures


@pytest.mark.parametrize("counts", [(50, 71, 84, 100, 283, 336, 566, 800), (1, 10, 100), (7,)])
def test_the_axis_reaches_to_the_last_edit_count(counts: tuple[int, ...]) -> None:
    data: Any = SimpleNamespace(edit_counts=(0, *counts), trajectories=())
    panel: Any = SimpleNamespace(values={}, title="Reliability")
    axis = Figure().subplots()
    figures._draw_panel(axis, data, panel, "generated")
    assert axis.get_xlim()[1] > counts[-1]
    assert all(axis.get_xlim()[0] <= tick <= axis.get_xlim()[1] for tick in axis.get_xticks())
