"""The graph of a run on many devices, with workers in this process: the rows of a local run, whatever is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overedit.flows.benchmark import benchmark, run_plan
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.config.run_identity import write_configuration
from overedit.flows.plan import make_plan
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.benchmark_run import checkpoint_digests, configuration, numbers, rows_of
from tests.support.fake_cluster import use_fake_clusters

RAY = {"engine": "ray", "editors": 2, "engines": 2}
METHODS = [
    {"method": "ultraedit", "sites": ["1.down_proj"], "learning_rate": 1e-3},
    {"method": "ft_m", "site": "1.down_proj", "max_steps": 2},
]


def run(home: Path, model: Path, **more: Any) -> Path:
    given = {"methods": METHODS, "evaluation": {"sample": 3}} | more
    run_plan(make_plan(BenchmarkConfig.model_validate(configuration(home, model, **given))))
    return home


@pytest.fixture(scope="module")
def local(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("local"), tiny_model)


@pytest.mark.slow
@pytest.mark.parametrize("loses_each", [False, True], ids=["nothing lost", "a worker lost in each unit"])
def test_the_rows_are_those_of_a_local_run(
    local: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loses_each: bool
) -> None:
    made = use_fake_clusters(monkeypatch, loses_each=loses_each)
    run(tmp_path, tiny_model, execution=RAY)
    (cluster,) = made
    assert numbers(tmp_path) == numbers(local)
    assert checkpoint_digests(tmp_path) == checkpoint_digests(local)
    edits = [place for place, name in enumerate(cluster.calls) if name == "edit"]
    assert "measure" in cluster.calls[edits[0] : edits[-1]], "what is there is measured before all is edited"
    units = 2 * 3 + 1 + 2 * 3
    assert len(cluster.calls) == units * (2 if loses_each else 1)
    assert not list(tmp_path.rglob("line")), "the states of the main line go at the end"
    assert not list(tmp_path.rglob("order-0/lock"))


@pytest.mark.slow
def test_its_units_are_task_runs_with_their_names(
    prefect_server: None, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client

    use_fake_clusters(monkeypatch)
    more = {"methods": METHODS[:1], "edit_counts": [1, 4], "execution": RAY, "name": "named"}
    benchmark(BenchmarkConfig.model_validate(configuration(tmp_path, tiny_model, **more)))
    with get_client(sync_client=True) as client:
        made = {run.name: run.state_name for run in client.read_task_runs(limit=200)}
    for name in ("edit UltraEdit, order 0, to 1", "edit UltraEdit, order 0, to 4", "measure base at 0"):
        assert made[name] == "Completed"
    assert {made["measure ultraedit at 1"], made["measure ultraedit at 4"]} == {"Completed"}


SEARCH = {
    "edit_counts": {"search": "collapse", "definition": ["forgotten", "perplexity"], "growth": 4.0, "precision": 0.3},
    "evaluation": {"protocols": ["generated"], "sample": 4, "probes": ["edit", "locality"]},
    "methods": [METHODS[0], METHODS[1] | {"learning_rate": 0.1}],
}


@pytest.mark.slow
def test_each_trajectory_of_a_search_takes_its_own_way(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No trajectory waits for another, and each stops at the edit counts of a local run."""
    run(tmp_path / "local", tiny_model, **SEARCH)
    use_fake_clusters(monkeypatch)
    run(tmp_path / "ray", tiny_model, execution=RAY, **SEARCH)
    here, there = numbers(tmp_path / "ray"), numbers(tmp_path / "local")
    of_trajectories = {
        name: [[row for row in rows if row.get("edit_count") != 0] for rows in (here[name], there[name])]
        for name in here
    }
    assert all(one == other for one, other in of_trajectories.values())
    assert rows_of(tmp_path / "ray", "verdicts") == rows_of(tmp_path / "local", "verdicts")
    question = "trajectory, edit_count, case_id, probe, probe_index, protocol"
    twice = f"SELECT 1 FROM outcomes GROUP BY {question} HAVING count(*) > 1"
    assert Warehouse(tmp_path / "ray" / "warehouse").query(twice).num_rows == 0
    assert not list(tmp_path.rglob("line"))


def test_where_it_is_done_is_no_other_configuration(tiny_model: Path, tmp_path: Path) -> None:
    plan = make_plan(BenchmarkConfig.model_validate(configuration(tmp_path, tiny_model)))
    write_configuration(plan.run, plan.config)
    make_plan(BenchmarkConfig.model_validate(configuration(tmp_path, tiny_model, execution=RAY)))
    with pytest.raises(ValueError, match="turn_size: was 4, is now 5"):
        make_plan(BenchmarkConfig.model_validate(configuration(tmp_path, tiny_model, execution=RAY, turn_size=5)))


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        ({"engine": "dask"}, "execution.*'dask'.*'local', 'ray'"),
        ({"engine": "local", "editors": 2}, "execution.local.editors"),
        ({"engine": "ray", "editors": 0}, "execution.ray.editors"),
        ({"engine": "ray", "address": "ray://head:10001"}, "accepted: local, auto, or HOST:PORT"),
    ],
)
def test_an_execution_that_is_not_accepted(
    tiny_model: Path, tmp_path: Path, execution: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        BenchmarkConfig.model_validate(configuration(tmp_path, tiny_model, execution=execution))


def test_ray_that_is_not_installed_is_named_with_its_extra(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overedit.tasks.execution.options.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"execution.engine: ray is not installed here; .* 'overedit\[ray\]'"):
        make_plan(BenchmarkConfig.model_validate(configuration(tmp_path, tiny_model, execution=RAY)))
