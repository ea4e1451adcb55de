"""The search for settings from its configuration to preset files that a run takes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.config.tuning import TuneConfig
from overedit.flows.plan import make_plan
from overedit.flows.tune import make_tune_plan, run_tune_plan, tune  # its body alone, `tune.fn`, needs no server
from overedit.tasks.tune import search as searching
from overedit.tasks.tune.preset_file import provenance_rows
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.benchmark_run import ROWS
from tests.support.command_line import Run

METHODS = [
    {"method": "ft_m", "site": "1.down_proj", "max_steps": 2},
    {"method": "ultraedit", "sites": ["1.down_proj"], "learning_rate": 1e-3},
]
RANGES = {"ft_m": {"learning_rate": [1e-4, 1e-2], "max_steps": [1, 3], "stop_below": None}}


def configuration(folder: Path, tiny_model: Path, **more: Any) -> dict[str, Any]:
    """A search on eight edits, and the benchmark on four others whose edits it may not see."""
    (folder / "rows.json").write_text(json.dumps(ROWS))
    (folder / "texts.txt").write_text("The sun is over Land1.\nA river runs to the sea.\n")
    (folder / "b.json").write_text(json.dumps(ROWS[:4]))
    benchmark = {
        "name": "b",
        "home": str(folder),
        "model": str(tiny_model),
        "dataset": {"name": "file", "path": str(folder / "b.json")},
        "methods": METHODS[:1],
        "edit_counts": [4],
        "engine": {"kind": "transformers"},
    }
    (folder / "b.yaml").write_text(yaml.safe_dump(benchmark))
    return {
        "name": "t",
        "home": str(folder),
        "model": str(tiny_model),
        "dataset": {"name": "file", "path": str(folder / "rows.json"), "order_seed": None},
        "skip": 4,
        "not_in": [str(folder / "b.yaml")],
        "methods": METHODS,
        "ranges": RANGES,
        "budget": {"trials": 6},
        "seeds": [0, 1],
        "edit_counts": [2, 4],
        "turn_size": 2,
        "evaluation": {"protocols": ["generated"], "probes": ["edit", "rephrase", "locality"], "max_tokens": 4},
        "perplexity": {"corpus": str(folder / "texts.txt")},
    } | more


def planned(content: dict[str, Any]) -> Any:
    return make_tune_plan(TuneConfig.model_validate(content))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows = Warehouse(folder / "warehouse").query("SELECT * EXCLUDE (seconds) FROM trials ORDER BY ALL").to_pylist()
    assert rows
    return rows


@pytest.fixture(scope="module")
def searched(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a finished search, which nobody may change."""
    folder = tmp_path_factory.mktemp("tune")
    page = tune.fn(TuneConfig.model_validate(configuration(folder, tiny_model)))
    assert page == str(folder / "reports" / "t.tune.html")
    return folder


def test_every_method_gets_the_same_budget_and_its_best_is_tested(searched: Path) -> None:
    warehouse = Warehouse(searched / "warehouse")
    chosen = warehouse.query("SELECT * FROM tuned_settings").to_pylist()
    assert {row["trajectory"]: row["num_trials"] for row in chosen} == {"ft-m": 6, "ultraedit": 6}
    trials = warehouse.query("SELECT * FROM tuning_trials").to_pylist()
    for row in chosen:
        own = [each for each in trials if each["trajectory"] == row["trajectory"]]
        values = {
            each["trial"]: each["value"] for each in own if each["split"] == "validation" and each["trial"] is not None
        }
        assert sorted(values) == list(range(6))
        best = max(value for value in values.values() if value is not None)
        assert row["validation"] == values[row["trial"]] == best
        assert {(each["split"], each["trial"]) for each in own if each["trial"] not in values} == {
            ("validation", None),
            ("test", None),
        }
        assert row["test_low"] <= row["test"] <= row["test_high"]
        assert row["gap"] == pytest.approx(row["validation"] - row["test"])
        assert row["gap_low"] <= row["gap"] <= row["gap_high"]
        assert row["given_test"] is not None
    settings = [json.loads(row["settings"]) for row in trials if row["method"] == "ft_m" and row["trial"] is not None]
    assert all(1e-4 <= each["learning_rate"] <= 1e-2 and each["max_steps"] in (1, 2, 3) for each in settings)
    assert all(each.keys() == {"learning_rate", "max_steps"} for each in settings), "null leaves a setting out"


def test_the_page_shows_the_search_and_loads_nothing(searched: Path) -> None:
    page = (searched / "reports" / "t.tune.html").read_text()
    assert "default-src 'none'" in page and "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert page.count("<svg") == 2 and "FT-M" in page and "UltraEdit" in page
    assert (searched / "reports" / "t.tune.png").read_bytes().startswith(b"\x89PNG")


def test_a_preset_file_is_what_a_run_takes_and_where_it_comes_from_is_a_query(
    searched: Path, tiny_model: Path, overedit: Run
) -> None:
    presets = searched / "presets" / "t"
    file = presets / "ft-m.yaml"
    content = yaml.safe_load(file.read_text())
    (row,) = [row for row in provenance_rows(str(presets)).to_pylist() if row["label"] == "FT-M"]
    kept = METHODS[0] if row["kept"] == "given" else json.loads(row["settings"])
    assert content["settings"].items() >= {name: kept[name] for name in kept if name != "method"}.items()
    of = "given_" if row["kept"] == "given" else ""
    values = {name: row[f"{of}{name}"] for name in ("validation", "test")}
    assert values.items() <= content["provenance"].items()
    code, out, _ = overedit("presets", "--provenance", str(presets))
    assert code == 0 and "FT-M" in out and "UltraEdit" in out
    plain = yaml.safe_load((searched / "b.yaml").read_text())
    config = BenchmarkConfig.model_validate(plain | {"methods": [{"preset": str(file), "stop_below": 0.5}]})
    (method,) = config.methods
    assert method.model_dump(exclude_unset=True) == content["settings"] | {"method": "ft_m", "stop_below": 0.5}
    assert len(make_plan(config).planned(0)) == 4, "the benchmark's edits are not those of the search"
    again = BenchmarkConfig.model_validate(json.loads(config.model_dump_json()))
    assert again == config, "a stored configuration still says which file was taken"


def test_a_run_on_edits_that_a_preset_was_tuned_on_is_refused(searched: Path, tmp_path: Path) -> None:
    plain = yaml.safe_load((searched / "b.yaml").read_text())
    (tmp_path / "rows.json").write_text(json.dumps(ROWS[:5]))
    dataset = {"name": "file", "path": str(tmp_path / "rows.json")}
    seen = plain | {"dataset": dataset, "methods": [{"preset": str(searched / "presets" / "t" / "ft-m.yaml")}]}
    seen |= {"edit_counts": [5], "name": "seen"}
    with pytest.raises(
        ValueError, match=r"ft-m.yaml was tuned on 1 edits \(cases c4\) of this run.*tuned_edits: leave_out or accept"
    ):
        make_plan(BenchmarkConfig.model_validate(seen))
    assert make_plan(BenchmarkConfig.model_validate(seen | {"tuned_edits": "accept"})).last_count == 5
    left = make_plan(BenchmarkConfig.model_validate(seen | {"tuned_edits": "leave_out", "edit_counts": [4]}))
    assert {each.case_id for each in left.planned(0)} == {"c0", "c1", "c2", "c3"}


def test_status_and_report_know_a_search(searched: Path, overedit: Run) -> None:
    code, out, _ = overedit("status", "--home", str(searched))
    assert code == 0 and "6 settings" in out
    code, _, err = overedit("report", "t", "--home", str(searched))
    assert code == 2 and "'t' is a search for settings" in err and "reports/t.tune.html" in err


def test_a_search_that_was_stopped_ends_equal(
    searched: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = configuration(tmp_path, tiny_model)
    tried = 0

    def dying(*arguments: Any, **more: Any) -> Any:
        nonlocal tried
        tried += 1
        if tried == 5:
            raise KeyboardInterrupt
        return measure(*arguments, **more)

    measure = searching._Search._measure
    with monkeypatch.context() as patch:
        patch.setattr(searching._Search, "_measure", dying)
        with pytest.raises(KeyboardInterrupt):
            run_tune_plan(planned(content))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "warehouse").rglob("*.parquet")}
    assert len(before) == 4
    run_tune_plan(planned(content))
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was stored is taken over"
    assert rows_of(tmp_path) == rows_of(searched)
    for name in ("ft-m", "ultraedit"):
        mine, theirs = (folder / "presets" / "t" / f"{name}.yaml" for folder in (tmp_path, searched))
        assert mine.read_text() == theirs.read_text()


def test_a_finished_search_measures_nothing(searched: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching._Search, "_measure", lambda *_, **__: pytest.fail("everything is stored"))
    before = rows_of(searched)
    run_tune_plan(planned(configuration(searched, tiny_model)))
    assert rows_of(searched) == before


ANOTHER_FILE = "none.yaml.*accepted: a file that overedit tune wrote"
TURNS = "edit_counts: 1 is inside a turn; accepted before the last one: multiples of turn_size, 2"
NO_SETTING = "ranges.ft_m.rate: there is no setting 'rate'; accepted here: append_eos"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"skip": 0}, r"dataset: 4 edits \(cases c0, c1, c2, c3\) of the 12 validation edits .* are edits of .*b.yaml"),
        ({"skip": 3}, r"dataset: 1 edits \(cases c3\) of the 9 validation edits \(skip: 3\).*accepted: other edits"),
        ({"skip": 10}, "edit_counts: 4 is more than the 2 validation edits: those after skip"),
        ({"not_in": ["none.yaml"]}, "none.yaml"),
        ({"not_in": []}, "not_in"),
        ({"edit_counts": [1, 4]}, TURNS),
        ({"ranges": {"rome": {"layers": [[0], [1]]}}}, "ranges: rome is not among methods; accepted: ft_m, ultraedit"),
        ({"ranges": {"ft_m": {"rate": [1, 2]}}}, NO_SETTING),
        ({"ranges": {"ft_m": {"learning_rate": [-1, 1]}}}, "ranges.ft_m.learning_rate: -1 is not accepted"),
        ({"ranges": {"ft_m": {"learning_rate": [2, 1]}}}, "from 2 to 1 is no interval"),
        ({"ranges": {"ft_m": {"site": ["1.down_proj", "7.down_proj"]}}}, "layer 7 does not exist"),
        ({"evaluation": {"protocols": ["teacher_forced"]}}, "evaluation.protocols: the objective takes"),
        ({"methods": [{"preset": "none.yaml"}]}, ANOTHER_FILE),
    ],
)  # fmt: skip
def test_a_search_that_cannot_be(tiny_model: Path, tmp_path: Path, more: dict[str, Any], words: str) -> None:
    content = configuration(tmp_path, tiny_model) | more
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=words):
        planned(content)
    assert sorted(tmp_path.rglob("*")) == before, "nothing half-written stays behind"


def test_edits_of_a_benchmark_are_left_out_where_asked(tiny_model: Path, tmp_path: Path) -> None:
    content = configuration(tmp_path, tiny_model, skip=0, shared_edits="leave_out")
    assert [each.case_id for each in planned(content).validation] == [f"c{number}" for number in range(4, 12)]


def test_edits_about_the_subjects_of_a_benchmark_are_refused_unless_accepted(tiny_model: Path, tmp_path: Path) -> None:
    content = configuration(tmp_path, tiny_model, edit_counts=[2])
    rows = [row | {"subject": "Land"} if row["case_id"] in ("c2", "c6") else row for row in ROWS]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "b.json").write_text(json.dumps(rows[:4]))
    with pytest.raises(
        ValueError, match=r"shared_subjects: refuse, but 1 edits \(cases c6\) .*shared_subjects: accept"
    ):
        planned(content)
    left = planned(content | {"shared_subjects": "leave_out"})
    assert {each.case_id for each in left.validation} == {f"c{number}" for number in range(4, 12)} - {"c6"}
    assert {each.case_id for each in left.test} == {"c0", "c1", "c2", "c3"}
    plan = planned(content | {"shared_subjects": "accept"})
    assert {each.case_id for each in plan.test} == {"c0", "c1", "c3"}, "test edits are about other subjects"
