"""The single items of the made-up run's benchmarks: `synthetic_run.py` has their means."""

from __future__ import annotations

from overedit.tasks.warehouse import Warehouse
from tests.tasks.synthetic_run import COUNTS, KEPT, METHODS, TASKS, chance, identity, partition


def fill_samples(warehouse: Warehouse, *, items: int = 200) -> None:
    """Write `items` of each task at each edit count; how many of them are right follows the task's score.

    An item has one difficulty in all checkpoints, so what is lost stays lost, but for a few that come and go.
    """
    points = [("base", 0, 1.0), *((m, count, KEPT[m][step]) for m in METHODS for step, count in enumerate(COUNTS))]
    for trajectory, count, kept in points:
        here = identity(trajectory, count)
        rows = []
        for task, (base, guessing) in TASKS.items():
            share = guessing + (base - guessing) * kept
            for item in range(items):
                luck = 0.02 * (chance(trajectory, count, task, item) - 0.5)
                is_right = chance(task, item) + luck < share
                rows.append(here | {"task": task, "doc_id": item, "metric": "acc", "value": float(is_right)})
        warehouse.write("capability_samples", rows, partition=partition(trajectory, count), key="made up")
