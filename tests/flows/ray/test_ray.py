"""A run on two machines of Ray: the rows of a local run, also where an editor, an engine, a machine and it itself die.

As root, since the machines are emulated in a network namespace. Takes ten minutes.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from overedit.flows.benchmark import run_plan
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.plan import make_plan
from overedit.tasks.runs.run import folder_name
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.benchmark_run import checkpoint_digests, configuration, numbers
from tests.support.operation import until
from tests.support.ray_nodes import PORT, RayNodes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif("OVEREDIT_RAY" not in os.environ, reason="takes minutes and needs root: make ray"),
]

MINUTES = 60
SLOW = {"method": "ft_m", "site": "1.down_proj", "max_steps": 400, "stop_below": 0.0}
SETTINGS: dict[str, Any] = {
    "methods": [SLOW | {"learning_rate": rate} for rate in (4e-4, 5e-4)],
    "order_seeds": [0, 1],
    "edit_counts": [1, 3, 5, 7],
    "turn_size": 1,
}
LABELS = ("FT-M (learning_rate=0.0004)", "FT-M (learning_rate=0.0005)")
RAY = {
    "engine": "ray",
    "address": f"127.0.0.1:{PORT}",
    "editors": 2,
    "engines": 2,
    "gpus_per_editor": 0.5,
    "gpus_per_engine": 0.5,
}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayNodes]:
    if os.geteuid() != 0:
        pytest.skip("a network namespace needs root")
    with RayNodes(tmp_path_factory.mktemp("nodes"), num_cpus=4, num_gpus=1) as made:
        made.add()
        yield made


def written(home: Path, model: Path, **more: Any) -> Path:
    """A configuration file."""
    content = configuration(home, model, **SETTINGS, **more)
    (home / "c.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(content))))
    return home / "c.yaml"


def completed(nodes: RayNodes, config: Path) -> None:
    log = config.with_suffix(".log")
    process = nodes.overedit("run", str(config), log=log)
    assert process.wait(timeout=25 * MINUTES) == 0, log.read_text()


@pytest.fixture(scope="module")
def local(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("local")
    run_plan(make_plan(BenchmarkConfig.model_validate(yaml.safe_load(written(home, tiny_model).read_text()))))
    return home


def overlap(home: Path) -> float:
    """The share of the time with work in which both editing and measuring went on."""
    (row,) = Warehouse(home / "warehouse").query("SELECT * FROM overlap").to_pylist()
    assert row["editing_seconds"] > 0 < row["measuring_seconds"]
    return float(row["share"])


def test_the_rows_are_those_of_a_local_run_and_measuring_overlaps_editing(
    nodes: RayNodes, local: Path, tiny_model: Path, tmp_path: Path
) -> None:
    completed(nodes, written(tmp_path, tiny_model, execution=RAY))
    assert numbers(tmp_path) == numbers(local)
    assert checkpoint_digests(tmp_path) == checkpoint_digests(local)
    print(f"editing and measuring went on together in {overlap(tmp_path):.0%} of the time")
    assert overlap(tmp_path) > 0 == overlap(local)
    with sqlite3.connect(nodes.folder / "prefect" / "prefect.db") as database:
        names = {name for (name,) in database.execute("SELECT name FROM task_run WHERE state_name = 'Completed'")}
        lines = database.execute("SELECT task_run.name, message FROM log JOIN task_run ON task_run.id = task_run_id")
        said = {(name.split(" at ")[0], message.split(" with ")[0]) for name, message in lines}
    database.close()
    for count in SETTINGS["edit_counts"]:
        assert {f"edit {label}, order 1, to {count}" for label in LABELS} <= names
        assert {f"measure {folder_name(label)} at {count}" for label in LABELS} <= names
    assert "transformers started" in {message for _, message in said}, "a worker's log is that of its task run"


@pytest.mark.parametrize("moment", [0, 4, 9])
def test_whatever_dies_no_row_is_lost_or_doubled(
    moment: int, nodes: RayNodes, local: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """An editor, an engine, a machine and the run itself die when so many of the 16 checkpoints are written."""
    config = written(tmp_path, tiny_model, execution=RAY)
    log = config.with_suffix(".log")
    driver = nodes.overedit("run", str(config), log=log)

    def reached(number: int) -> None:
        def enough() -> bool | None:
            assert driver.poll() is None, log.read_text()
            return len(list(tmp_path.glob("runs/r/*/order-*/[0-9]*/costs.json"))) >= number or None

        until(enough, seconds=15 * MINUTES, what=f"{number} checkpoints; {log.read_text()[-2000:]}")

    def busy(title: str, others: tuple[int, ...] = ()) -> int:
        def found() -> int | None:
            assert driver.poll() is None, log.read_text()
            return next((pid for pid in nodes.workers(title) if pid not in others), None)

        return until(found, seconds=15 * MINUTES, what=f"{title}; {log.read_text()[-2000:]}")

    reached(moment)
    editor = busy("ray::Editor.edit")
    os.kill(editor, signal.SIGKILL)
    engine = busy("ray::Measurer.measure")
    os.kill(engine, signal.SIGKILL)
    busy("ray::Editor.edit", (editor,))
    nodes.kill_node(nodes.nodes[-1])
    nodes.add()
    reached(moment + 3)
    assert driver.poll() is None, f"it had ended before it could be killed: {log.read_text()}"
    driver.kill()
    assert driver.wait(timeout=60) == -signal.SIGKILL
    completed(nodes, config)
    assert "it is done again by another worker" in log.read_text()
    assert numbers(tmp_path) == numbers(local)
    assert checkpoint_digests(tmp_path) == checkpoint_digests(local)
