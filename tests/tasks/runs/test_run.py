"""The rows of a point of a trajectory, and the names of trajectories."""

from __future__ import annotations

from overedit.tasks.runs.run import TrajectoryPoint, display_names


def test_a_stage_stored_twice_leaves_one_row(point: TrajectoryPoint) -> None:
    for seconds in (1.0, 2.0):
        point.store_cost("swap", seconds, 1, key="k")
    point.store_cost("edit", 3.0, 10, key="k")
    rows = point.run.warehouse.query("SELECT stage, seconds, edit_count FROM costs ORDER BY stage").to_pylist()
    assert rows == [
        {"stage": "edit", "seconds": 3.0, "edit_count": 10},
        {"stage": "swap", "seconds": 2.0, "edit_count": 10},
    ]


def test_rows_are_held_under_their_key_only(point: TrajectoryPoint) -> None:
    row = {"corpus": "c", "text_id": 0, "nll": 1.0, "num_tokens": 2}
    assert not point.holds("perplexity", "k")
    point.store("perplexity", [row], key="k")
    assert point.holds("perplexity", "k")
    assert not point.holds("perplexity", "other")
    assert not point.model_copy(update={"edit_count": 11}).holds("perplexity", "k")


def test_a_display_name_is_as_short_as_it_can_be() -> None:
    rows = [
        {"label": "FT-L", "trajectory": "ft-l", "order_seed": 0},
        {"label": "FT-L", "trajectory": "ft-l-2", "order_seed": 0},
        {"label": "MEMIT", "trajectory": "memit", "order_seed": 1},
    ]
    assert display_names(rows, show_order=False) == ["FT-L [ft-l]", "FT-L [ft-l-2]", "MEMIT"]
    orders = ["FT-L (order 0) [ft-l]", "FT-L (order 0) [ft-l-2]", "MEMIT (order 1)"]
    assert display_names(rows, show_order=True) == orders
