"""A warehouse with a few hand-made rows for tests of the views, and builders of these rows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from overedit.tasks.warehouse.warehouse import Warehouse

Row = dict[str, Any]


def at(edit_count: int, *, trajectory: str = "fast", seed: int = 0) -> Row:
    """The identity of a point; the trajectory `base` is the pristine model."""
    return {
        "run": "r",
        "trajectory": trajectory,
        "model": "m",
        "method": "none" if trajectory == "base" else f"method_of_{trajectory}",
        "dataset": "d",
        "order_seed": seed,
        "edit_count": edit_count,
    }


BASE = at(0, trajectory="base")


class Bench:
    """A warehouse to put rows in and to ask."""

    def __init__(self, root: Path) -> None:
        self.warehouse = Warehouse(root)
        self.parts = 0

    def put(self, table: str, rows: Iterable[Row]) -> None:
        self.parts += 1
        self.warehouse.write(table, list(rows), partition={"run": "r"}, key="k", part=str(self.parts))

    def ask(self, view: str, where: str = "true") -> list[Row]:
        return list(self.warehouse.query(f"SELECT * FROM {view} WHERE {where}").to_pylist())

    def one(self, view: str, where: str = "true") -> Row:
        (row,) = self.ask(view, where)
        return row


def answers(point: Row, probe: str, scores: list[float | None], **more: Any) -> list[Row]:
    made = []
    for number, score in enumerate(scores, 1):
        row = {"position": number, "case_id": str(number), "probe": probe, "protocol": "generated", "score": score}
        made.append(point | row | more)
    return made


def capabilities(point: Row, **values: float | None) -> list[Row]:
    common = {"metric": "acc", "main": True, "num_samples": 100, "stderr": None, "chance": 0.0}
    return [point | common | {"task": task, "value": value} for task, value in values.items()]


def texts(point: Row, *nlls: float) -> list[Row]:
    return [point | {"corpus": "c", "text_id": i, "nll": nll, "num_tokens": 10} for i, nll in enumerate(nlls)]


def items(point: Row, task: str, *values: float, metric: str = "acc") -> list[Row]:
    return [point | {"task": task, "doc_id": i, "metric": metric, "value": value} for i, value in enumerate(values)]


def with_headline(point: Row, *tasks: str) -> list[Row]:
    """Which metric of the tasks is the headline; a score of 0.9 out of 100 stands with it."""
    return capabilities(point, **dict.fromkeys(tasks, 0.9))
