"""A search for the collapse through the flow: a tiny model, a real engine, and a stop in the middle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from overedit.flows import trajectories
from overedit.flows.benchmark import run_plan
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.plan import make_plan
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.benchmark_run import digests

SEARCH = {"search": "collapse", "definition": ["forgotten", "perplexity"], "growth": 4.0, "precision": 0.3}


def searching(home: Path, **more: Any) -> BenchmarkConfig:
    """The pocket model under FT-M with steps that break it, and under UltraEdit, which hardly changes it."""
    config = {
        "name": "r",
        "home": str(home),
        "dataset": {"name": "pocket", "limit": 12},
        "methods": [
            {"method": "ft_m", "site": "4.down_proj", "max_steps": 3, "learning_rate": 0.1},
            {"method": "ultraedit", "learning_rate": 1e-9},
        ],
        "edit_counts": SEARCH,
        "turn_size": 4,
        "evaluation": {"protocols": ["generated"], "sample": 4, "probes": ["edit", "locality"]},
        "perplexity": {"corpus": "pocket", "limit": 20},
        "engine": {"kind": "transformers"},
    }
    return BenchmarkConfig.model_validate(config | more)


def run(config: BenchmarkConfig) -> Warehouse:
    plan = make_plan(config)
    run_plan(plan)
    return plan.run.warehouse


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("search")
    run(searching(home))
    return home


@pytest.mark.slow
def test_the_bracket_is_as_narrow_as_asked_and_every_count_in_it_was_measured(whole: Path) -> None:
    warehouse = Warehouse(whole / "warehouse")
    found = {
        (row["trajectory"], row["definition"]): row
        for row in warehouse.query("SELECT * FROM collapse_search").to_pylist()
    }
    broken, kept = found["ft-m", "perplexity"], found["ultraedit", "perplexity"]
    assert broken["collapse_at"] is not None, warehouse.query("SELECT * FROM collapse_checks").to_pylist()
    assert broken["collapse_at"] - broken["last_good"] <= max(1, 0.3 * broken["last_good"])
    assert broken["takes"] == broken["last_good"] and broken["confidence"] == 0.95
    assert (kept["takes"], kept["collapse_at"], kept["measured_up_to"]) == (12, None, 12), "stop is the data's length"
    points = {row["trajectory"]: row for row in warehouse.query("SELECT * FROM collapse_point").to_pylist()}
    first = found["ft-m", "forgotten"]
    assert [points["ft-m"][name] for name in ("takes", "last_good", "collapse_at", "confidence")] == [
        first[name] for name in ("takes", "last_good", "collapse_at", "confidence")
    ], "its first definition is the one of collapse_point"
    measured = warehouse.query("SELECT DISTINCT edit_count FROM outcomes WHERE trajectory = 'ft-m'").num_rows
    assert measured == broken["num_measured"]
    assert not list(whole.rglob("line")), "the states of the main line go when the search has ended"


@pytest.mark.slow
def test_every_case_has_its_pre_edit_answer(whole: Path) -> None:
    """The pristine model is asked round by round, each question once."""
    query = Warehouse(whole / "warehouse").query
    twice = (
        "SELECT 1 FROM outcomes WHERE edit_count = 0 GROUP BY case_id, probe, probe_index, protocol HAVING count(*) > 1"
    )
    assert query(twice).num_rows == 0
    lost = "SELECT reason FROM outcomes WHERE edit_count > 0 AND probe = 'locality' AND agreement IS NULL"
    assert query(lost).num_rows == 0


@pytest.mark.slow
def test_a_search_that_was_stopped_takes_the_same_way(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = iter(range(100))
    real = trajectories.edit_all

    def killed(*arguments: Any) -> Any:
        if next(rounds) == 4:  # after the collapse was passed by
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trajectories, "edit_all", killed)
        run(searching(tmp_path))
    edited = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/**/checkpoint.json")}
    assert len(edited) > 4
    run(searching(tmp_path))
    measured = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/**/[0-9]*/checkpoint.json")}
    assert measured.items() >= {path: at for path, at in edited.items() if "line" not in path.parts}.items()
    for table in ("verdicts", "checkpoints", "outcomes", "perplexity"):
        columns = "* EXCLUDE (path)" if table == "checkpoints" else "*"
        sql = f"SELECT {columns} FROM {table} ORDER BY ALL"
        assert Warehouse(tmp_path / "warehouse").query(sql) == Warehouse(whole / "warehouse").query(sql)


@pytest.mark.slow
def test_a_complete_search_asked_again_computes_nothing(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "copy")
    config = searching(whole).model_copy(update={"home": tmp_path / "copy"})
    before = digests(tmp_path / "copy", "runs", "warehouse/outcomes", "warehouse/verdicts", "warehouse/perplexity")
    warehouse = run(config)
    after = digests(tmp_path / "copy", "runs", "warehouse/outcomes", "warehouse/verdicts", "warehouse/perplexity")
    assert after == before
    last = warehouse.query("SELECT num_computed FROM instances ORDER BY instance DESC LIMIT 1")["num_computed"]
    assert last.to_pylist() == [0]


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"stop": 13}, "edit_counts.stop: 13 is more than the 12 requests"),
        ({"start": 13}, "edit_counts.start: 13 is more than the 12 requests"),
    ],
)
def test_a_search_beyond_the_data_is_refused(tmp_path: Path, search: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_plan(searching(tmp_path, edit_counts=SEARCH | search))


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"definition": "practical"}, "practical needs capability at every edit count"),
        ({"definition": "significant"}, "definition"),
        ({"growth": 1}, "growth"),
        ({"start": 5, "stop": 4}, "stop: 4 is below start, which is 5"),
        ({"search": "the end"}, "collapse"),
        ({"steps": 3}, "steps"),
    ],
)
def test_a_search_that_cannot_be_is_refused_by_its_key(tmp_path: Path, search: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        searching(tmp_path, edit_counts=SEARCH | search)
