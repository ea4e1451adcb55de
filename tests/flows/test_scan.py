"""The scan from its configuration to the dataset of hard cases, and what a wrong configuration is answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from overedit.flows.config.models import BenchmarkConfig, ScanConfig
from overedit.flows.plan import make_plan
from overedit.flows.scan import scan  # its body alone, `scan.fn`, needs no server
from overedit.tasks.data.loader import load_requests
from overedit.tasks.data.options import DatasetOptions
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.benchmark_run import ROWS
from tests.support.command_line import Run


def configuration(folder: Path, tiny_model: Path, **more: Any) -> dict[str, Any]:
    (folder / "rows.json").write_text(json.dumps(ROWS[:4]))
    (folder / "texts.txt").write_text("The sun is over Land1.\nA river runs to the sea.\n")
    plain = {
        "name": "s",
        "home": str(folder),
        "model": str(tiny_model),
        "dataset": {"name": "file", "path": str(folder / "rows.json")},
        "methods": [
            {"method": "ft_m", "site": "1.down_proj", "max_steps": 1},
            {"method": "ft_m", "site": "0.layer", "max_steps": 3, "learning_rate": 1e9},
        ],
        "perplexity": {"corpus": str(folder / "texts.txt"), "limit": 2},
    }
    return plain | more


def test_a_scan_leaves_the_hard_cases_as_a_dataset_that_can_be_run(
    overedit: Run, tiny_model: Path, tmp_path: Path
) -> None:
    content = configuration(tmp_path, tiny_model)
    config = ScanConfig.model_validate(content)
    lines = scan.fn(config).splitlines()
    mild, wild = config.labels
    assert lines[0].startswith(f"{mild}: 0 of 4 edits break the model")
    assert lines[1].startswith(f"{wild}: 4 of 4 edits break the model")
    (path,) = (tmp_path / "datasets").iterdir()
    assert lines[1].endswith(f"hard cases: {path}")
    hard = load_requests(DatasetOptions(name="file", path=path)).requests
    every = load_requests(DatasetOptions(name="file", path=tmp_path / "rows.json")).requests
    assert {request.case_id: request for request in hard} == {request.case_id: request for request in every}
    more = {"name": "on-hard", "home": str(tmp_path), "edit_counts": [1, 4], "engine": {"kind": "transformers"}}
    told = {key: content[key] for key in ("model", "methods")} | {"dataset": {"name": "file", "path": str(path)}} | more
    assert len(make_plan(BenchmarkConfig.model_validate(told)).planned(0)) == 4
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "warehouse" / "scans").rglob("*.parquet")}
    assert scan.fn(config).splitlines() == lines
    assert {file: file.stat().st_mtime_ns for file in before} == before
    rows = Warehouse(tmp_path / "warehouse").query("SELECT DISTINCT trajectory, label, edit_count FROM scans")
    assert {row["label"] for row in rows.to_pylist()} == {mild, wild}
    assert Warehouse(tmp_path / "warehouse").query("SELECT * FROM trajectories").num_rows == 0
    code, out, _ = overedit("status", "--home", str(tmp_path))
    assert (code, out.count(" s "), out.count("4 edits scanned")) == (0, 3, 2)
    for verb in (("report", "s"), ("compare", "s", "other")):
        code, out, err = overedit(*verb, "--home", str(tmp_path))
        assert (code, out) == (2, "") and "'s' is a scan" in err
    query = err.split('overedit sql "')[1].split('"')[0]
    answer = Warehouse(tmp_path / "warehouse").query(query)
    assert set(answer["label"].to_pylist()) == {mild, wild}, "what the message says to ask is answered"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("perplexity={}", "perplexity.corpus: is needed"),
        ("perplexity.corpus=none.txt", "perplexity.corpus: there is no file none.txt"),
        ("dataset.order_seed=null", "dataset.order_seed: null is no seed"),
        ("edit_counts=[1]", "edit_counts: there is no such key"),
        ("methods=[rome]", "methods.0.layers: is needed"),
        ("methods.0.site=7.down_proj", "layer 7 does not exist"),
        ("dataset={name: mquake}", "no known source on the dataset hub; name a local file by `path`"),
        ("dataset.limit=5", "limit: 5 is more than the 4 edits"),
        ("name=../up", "name"),
    ],
)
def test_a_scan_that_cannot_be(overedit: Run, tiny_model: Path, tmp_path: Path, setting: str, words: str) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(configuration(tmp_path, tiny_model)))
    before = sorted(tmp_path.rglob("*"))
    code, out, err = overedit("scan", "c.yaml", "--set", setting)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before, "nothing half-written stays behind"


def test_a_name_stands_for_one_scan(tiny_model: Path, tmp_path: Path) -> None:
    content = configuration(tmp_path, tiny_model)
    content["methods"] = content["methods"][:1]
    scan.fn(ScanConfig.model_validate(content))
    with pytest.raises(ValueError, match="seed: was 0, is now 1"):
        scan.fn(ScanConfig.model_validate(content | {"seed": 1}))
