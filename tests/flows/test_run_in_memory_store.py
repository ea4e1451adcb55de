"""A run whose home is a store in this process's memory; tests/flows/test_run_in_object_store.py has a real one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from overedit.flows.config.locate import LocateConfig
from overedit.flows.config.models import BenchmarkConfig, ScanConfig
from overedit.flows.config.tuning import TuneConfig
from overedit.flows.locate import locate
from overedit.flows.scan import scan
from overedit.flows.tune import tune
from overedit.tasks.storage.working_copy import local_home, shown_path, sizes
from tests.support.benchmark_run import ROWS, configuration, rows_of

METHODS = [
    {"method": "ft_m", "site": "1.down_proj", "max_steps": 2},
    {"method": "ultraedit", "sites": ["1.down_proj"], "learning_rate": 1e-3},
]


@pytest.mark.slow
def test_a_run_in_a_store_has_the_rows_and_files_of_one_in_a_folder(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overedit.flows.benchmark import run_alone
    from overedit.flows.plan import make_plan

    monkeypatch.setenv("OVEREDIT_CACHE", str(tmp_path / "cache"))
    folder, url = tmp_path / "folder", f"memory://{tmp_path.name}/results"
    content = configuration(folder, tiny_model, methods=METHODS, edit_counts=[2, 6])
    in_folder, in_store = (BenchmarkConfig.model_validate(content | {"home": home}) for home in (str(folder), url))
    assert BenchmarkConfig.model_validate(in_store.model_dump(mode="json")) == in_store
    assert in_store.model_dump(mode="json")["home"] == url
    run_alone(make_plan(in_folder), wait=False)
    instance = run_alone(make_plan(in_store), wait=False)
    assert shown_path(instance.run.report) == f"{url}/reports/r.html"

    home = local_home(url)
    for table in ("outcomes", "perplexity"):
        assert rows_of(home, table) == rows_of(folder, table)
    assert {row["path"].rsplit("/", 3)[0] for row in rows_of(home, "checkpoints")} == {f"{url}/runs/r"}
    there = sizes(home)
    here = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    parts = ("runs", "reports", "warehouse")
    own = ("instances", "instance_files", "accepted")  # their folders are named after the instance
    kept = [
        {name for name in names if name.split("/")[0] in parts and name.split("/")[1] not in own}
        for names in (there, here)
    ]
    assert kept[0] == kept[1]

    shutil.rmtree(home)  # another machine
    again = run_alone(make_plan(in_store), wait=False)
    assert again.row["num_computed"] == 0
    of_run = {name: size for name, size in there.items() if name.startswith("runs/")}
    assert of_run == {name: size for name, size in sizes(home).items() if name.startswith("runs/")}


OTHERS: dict[str, tuple[Any, Callable[..., str], str, dict[str, Any]]] = {
    "scan": (ScanConfig, scan.fn, "scans", {}),
    "tune": (
        TuneConfig,
        tune.fn,
        "trials",
        {"skip": 4, "budget": {"trials": 2}, "edit_counts": [2], "turn_size": 2, "seeds": [0], "not_in": ["b.yaml"]},
    ),
    "locate": (LocateConfig, locate.fn, "site_scores", {"edits": 2, "test_edits": 0, "sites": {"layers": [1]}}),
}
"""Command -> its configuration, the body of its flow, its table, and its own keys."""


@pytest.mark.parametrize("command", OTHERS)
def test_other_commands_store_the_same_rows_there_and_go_on_from_an_empty_machine(
    command: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVEREDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    kind, run, table, own = OTHERS[command]
    plain = {key: value for key, value in configuration(tmp_path, tiny_model).items() if key in kind.model_fields}
    plain["dataset"] |= {"order_seed": 0 if command == "scan" else None}
    (tmp_path / "b.json").write_text(json.dumps(ROWS[:4]))
    dataset = {"name": "file", "path": str(tmp_path / "b.json")}
    (tmp_path / "b.yaml").write_text(
        yaml.safe_dump(plain | {"dataset": dataset, "methods": METHODS[:1], "edit_counts": [4]})
    )
    folder, url = tmp_path / "folder", f"memory://{tmp_path.name}/{command}"
    made = plain | {"methods": METHODS[:1]} | own
    configs = [kind.model_validate({**made, "home": home}) for home in (str(folder), url)]
    for config in configs:
        run(config)
    home = local_home(url)

    def rows(where: Path) -> list[dict[str, Any]]:
        timed = [row for row in rows_of(where, table) if row.get("measure") != "seconds"]
        return [{name: value for name, value in row.items() if name != "seconds"} for row in timed]

    assert rows(home) == rows(folder)
    shutil.rmtree(home)
    before = {name: size for name, size in sizes(home).items() if table in name}
    said = run(configs[1])
    assert before and before == {name: size for name, size in sizes(home).items() if table in name}
    assert command == "scan" or said.startswith(url) or Path(said).is_relative_to(home)
