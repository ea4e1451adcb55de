"""`overedit plan`: what it tells, what it refuses, and the settings that it proposes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.support.benchmark_run import FinishedRun
from tests.support.command_line import Run


def test_a_plan_tells_and_writes_nothing(overedit: Run, files: dict[str, str], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, out, err = overedit("plan", files["config"])
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    for words in ("as configured: 1, 10 edits", "FT-M", "host memory", "disk", "expected time, at most:", "assumed"):
        assert words in out
    assert "NOT ENOUGH" not in out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "methods.0.method=rom"], "accepted: "),
        (["--set", "edit_counts=[1, 21]"], "21 edits are asked for, but the data holds 20 requests"),
        (["--format", "yaml"], "format: 'yaml' is unknown; choose one of table, json"),
        (["--set", "model=./nowhere"], "there is no folder ./nowhere"),
    ],
)
def test_bad_input(overedit: Run, files: dict[str, str], options: list[str], words: str) -> None:
    code, out, err = overedit("plan", files["config"], *options)
    assert (code, out) == (2, "")
    assert words in err


def test_a_run_that_cannot_fit_is_refused(overedit: Run, files: dict[str, str]) -> None:
    code, out, err = overedit("plan", files["config"], "--memory", "0.1")
    assert code == 2
    assert "NOT ENOUGH" in out
    assert "plan: this run does not fit (host memory: " in err
    assert "no smaller setting of it would fit" in err


def test_the_nearest_setting_that_would_fit_is_proposed_and_does_fit(overedit: Run, files: dict[str, str]) -> None:
    """Five copies of the process that edits do not fit into the memory in which one does."""
    several = ["--set", "order_seeds=[0, 1, 2, 3, 4]", "--set", "execution={engine: ray, editors: 5}", "--memory", "3"]
    code, _, err = overedit("plan", files["config"], *several)
    assert code == 2
    assert "it would fit with --set 'execution.editors=1'" in err
    assert overedit("plan", files["config"], *several, "--set", "execution.editors=1")[0] == 0


def test_fewer_checkpoints_are_proposed_where_the_disk_is_small(overedit: Run, files: dict[str, str]) -> None:
    """`disk_space.SLACK` is 64 MiB, and a checkpoint of the tiny model some KiB."""
    config = yaml.safe_load(Path(files["config"]).read_text())
    config["edit_counts"] = list(range(1, 21))
    Path(files["config"]).write_text(yaml.safe_dump(config))
    code, out, _ = overedit("plan", files["config"], "--format", "json", "--disk", "1")
    assert code == 0
    (disk,) = [need for need in json.loads(out)[0]["needs"] if need["what"] == "disk"]
    small = str((disk["needed"] - 40_000) / 2**30)
    code, _, err = overedit("plan", files["config"], "--disk", small)
    assert code == 2
    proposed = err.partition("--set '")[2].partition("'")[0]
    assert proposed.startswith("edit_counts=[")
    assert proposed.endswith("20]")
    assert overedit("plan", files["config"], "--disk", small, "--set", proposed)[0] == 0


def test_a_search_has_two_cases(overedit: Run, files: dict[str, str]) -> None:
    corpus = Path("texts.txt")
    corpus.write_text("The sun is over Land1.\nA river runs to the sea.\n")
    search = "edit_counts={search: collapse, definition: perplexity, start: 2, precision: 0.3}"
    code, out, _ = overedit(
        "plan", files["config"], "--set", search, "--set", f"perplexity.corpus={corpus}", "--format", "json"
    )
    assert code == 0
    fewest, most = json.loads(out)
    assert sum(fewest["edit_counts"]) < sum(most["edit_counts"])
    assert fewest["seconds"] < most["seconds"]


def test_earlier_runs_give_rates_and_memory(overedit: Run, finished: FinishedRun, tmp_path: Path) -> None:
    """The same configuration, with the home of a run that is complete: everything is measured."""
    content = json.loads(finished.config.model_dump_json(exclude_unset=True))
    Path("c.yaml").write_text(yaml.safe_dump(content))
    code, out, _ = overedit("plan", "c.yaml", "--set", "name=again", "--format", "json")
    assert code == 0
    (case,) = json.loads(out)
    assert {method["source"] for method in case["methods"]} == {"measured"}
    measured = {stage["stage"] for stage in case["stages"] if stage["source"] == "measured"}
    assert measured >= {"generate", "score", "perplexity", "swap", "engine_start"}
    from overedit.tasks.warehouse.warehouse import Warehouse

    sql = "SELECT trajectory, sum(seconds) AS seconds FROM costs WHERE stage = 'edit' GROUP BY ALL ORDER BY 1"
    rows = Warehouse(finished.folder / "warehouse").query(sql).to_pylist()
    planned = {method["label"]: method["seconds"] for method in case["methods"]}
    assert planned["UltraEdit"] == pytest.approx(rows[-1]["seconds"], rel=0.05), "the same edits take the same again"
