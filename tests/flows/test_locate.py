"""The search among sites from its configuration to the heat maps, and what a wrong configuration is answered."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from overedit.editing.metrics import prompt_key
from overedit.flows.config.locate import LocateConfig
from overedit.flows.locate import LocatePlan, locate, make_locate_plan  # `locate.fn`, its body alone, needs no server
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DatasetOptions
from overedit.tasks.locate.ranking import proposal
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.benchmark_run import ROWS
from tests.support.command_line import Run


def configuration(folder: Path, tiny_model: Path, **more: Any) -> dict[str, Any]:
    (folder / "rows.json").write_text(json.dumps(ROWS))
    (folder / "texts.txt").write_text("The sun is over Land1.\nA river runs to the sea.\n")
    return {
        "name": "where",
        "home": str(folder),
        "model": str(tiny_model),
        "dataset": {"name": "file", "path": str(folder / "rows.json"), "order_seed": None},
        "methods": [{"method": "locft_bf", "epochs": 20, "learning_rate": 2e-2}],
        "edits": 4,
        "test_edits": 3,
        "test_sites": 2,
        "evaluation": {"protocols": ["teacher_forced", "generated"], "max_tokens": 4, "max_locality": 1},
        "perplexity": {"corpus": str(folder / "texts.txt"), "limit": 2},
    } | more


def benchmark(folder: Path, tiny_model: Path, edits: int) -> Path:
    """A benchmark that edits the first rows."""
    content = configuration(folder, tiny_model)
    kept = {key: content[key] for key in ("model", "dataset", "methods")}
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(kept | {"name": "bench", "edit_counts": [1, edits]}))
    return path


def rows(folder: Path, sql: str) -> list[dict[str, Any]]:
    return list(Warehouse(folder / "warehouse").query(sql).to_pylist())


def test_a_search_measures_every_site_proposes_one_and_is_left_alone_when_complete(
    overedit: Run, tiny_model: Path, tmp_path: Path
) -> None:
    config = LocateConfig.model_validate(configuration(tmp_path, tiny_model))
    page = Path(locate.fn(config))
    assert page == tmp_path / "reports" / "where.locate.html"
    ranked = rows(tmp_path, "SELECT * FROM site_ranking WHERE protocol = 'teacher_forced'")
    by_split = {split: [row for row in ranked if row["split"] == split] for split in ("validation", "test")}
    parts = ("layer", "attention", "mlp", "up_proj", "gate_proj", "down_proj")
    assert {row["site"] for row in by_split["validation"]} == {f"{i}.{part}" for i in range(2) for part in parts}
    best = [row["site"] for row in by_split["validation"] if row["rank"] <= 2]
    assert {row["site"] for row in by_split["test"]} == set(best)
    assert [row["site"] for row in ranked if row["proposed"]] == best[:1]
    assert all(row["low"] <= row["score"] <= row["high"] for row in ranked)
    assert max(row["reliability"] for row in by_split["validation"]) > 0.5, "something is learned"
    assert all(row["perplexity_ratio"] > 0 and row["seconds"] > 0 for row in ranked)
    text = page.read_text()
    assert best[0] in text and "Teacher-forced protocol, test edits" in text
    assert page.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(configuration(tmp_path, tiny_model)))
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "warehouse" / "site_scores").rglob("*.parquet")}
    assert locate.fn(config) == str(page)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert rows(tmp_path, "SELECT * FROM trajectories") == [], "sites are no trajectories of a benchmark"
    (code, out, err) = overedit("report", "where", "--home", str(tmp_path))
    assert (code, out) == (2, "") and "is a search among sites" in err
    query = err.split('overedit sql "')[1].split('"')[0]
    assert rows(tmp_path, query), "what the message says to ask is answered"


def plan_of(tmp_path: Path, tiny_model: Path, **more: Any) -> LocatePlan:
    return make_locate_plan(LocateConfig.model_validate(configuration(tmp_path, tiny_model, **more)))


def test_edits_are_disjoint_from_a_benchmarks_and_from_each_other(tiny_model: Path, tmp_path: Path) -> None:
    path = benchmark(tmp_path, tiny_model, 5)
    plan = plan_of(tmp_path, tiny_model, not_in=str(path))
    edited = load_requests(DatasetOptions(name="file", path=tmp_path / "rows.json", order_seed=0)).requests[:5]
    left = [row["case_id"] for row in ROWS if row["case_id"] not in {request.case_id for request in edited}]
    assert [r.case_id for r in plan.validation.requests] == left[:4]
    assert [r.case_id for r in plan.test.requests] == left[4:7]
    prompts = [prompt_key(r.prompt) for split in (plan.validation, plan.test) for r in split.requests]
    assert len(set(prompts)) == 7


def test_edits_with_a_prompt_of_another_are_taken_once(tiny_model: Path, tmp_path: Path) -> None:
    content = configuration(tmp_path, tiny_model)
    twice = [ROWS[0], ROWS[0] | {"case_id": "again", "target_new": "Elsewhere"}, *ROWS[1:7]]
    (tmp_path / "rows.json").write_text(json.dumps(twice))
    plan = make_locate_plan(LocateConfig.model_validate(content))
    assert [r.case_id for r in plan.validation.requests] == ["c0", "c1", "c2", "c3"]


def test_too_few_edits_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    path = benchmark(tmp_path, tiny_model, 6)
    words = (
        f"edits: 4 and test_edits: 3 are more than the 6 distinct prompts of file without the edits of not_in: {path}"
    )
    with pytest.raises(ValueError, match=re.escape(words)):
        plan_of(tmp_path, tiny_model, not_in=str(path))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("methods=[ft_m, ft_l]", "methods: 2 are given; exactly one is accepted"),
        ("edit_counts=[1]", "edit_counts: there is no such key"),
        ("sites.layers=[2]", "layer 2 does not exist: the model has layers 0 to 1"),
        ("sites.parts=[experts]", "sites.parts"),
        ("methods.0={method: ultraedit, sites: [1.mlp]}", ""),
        ("sites.layers=[]", "sites.layers"),
        ("engine.tensor_parallel=2", "only 1 is accepted, since sites are edited in memory"),
        ("engine.kind=vllm", "kind: vllm is not accepted, since sites are edited in memory"),
        ("evaluation.probes=[portability]", "none of edit, rephrase and locality is asked"),
        ("not_in=none.yaml", "none.yaml"),
        (
            "edits=50",
            "edits: 50 and test_edits: 3 are more than the 12 distinct prompts of file; accepted: 12 together",
        ),
        ("perplexity.corpus=none.txt", "perplexity.corpus: there is no file none.txt"),
        ("name=../up", "name"),
    ],
)
def test_a_search_that_cannot_be(overedit: Run, tiny_model: Path, tmp_path: Path, setting: str, words: str) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(configuration(tmp_path, tiny_model)))
    before = sorted(tmp_path.rglob("*"))
    if "ultraedit" in setting:
        setting, words = f"{setting[:-1]}, learning_rate: fast}}", "learning_rate"
    code, out, err = overedit("locate", "c.yaml", "--set", setting)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before, "nothing half-written stays behind"


def test_a_name_stands_for_one_search(tiny_model: Path, tmp_path: Path) -> None:
    small = {"sites": {"layers": [0], "parts": ["up_proj"]}, "test_edits": 0, "evaluation": {"max_tokens": 2}}
    plan = plan_of(tmp_path, tiny_model, **small)
    assert not plan.test.requests and plan.sites == ("0.up_proj",)
    assert (plan.config.evaluation.protocols, plan.config.evaluation.max_tokens) == (("generated",), 2)
    locate.fn(plan.config)
    assert proposal(plan.rankings()[0]).startswith("proposes 0.up_proj: ")
    with pytest.raises(ValueError, match="edits: was 4, is now 5"):
        plan_of(tmp_path, tiny_model, **small, edits=5)
