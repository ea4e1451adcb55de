"""A run whose home is a store in this process's memory; tests/flows/test_run_in_object_store.py has a real one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from overedit.flows.config.models import BenchmarkConfig
from overedit.tasks.storage.working_copy import local_home, shown_path, sizes
from tests.support.benchmark_run import configuration, rows_of

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
