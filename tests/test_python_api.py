"""The Python API: results as tables, edits in a model's weights, and errors that say what is accepted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import overedit
from overedit.editing.model.weights import checksum
from overedit.editing.requests import EditRequest
from overedit.editing.trajectory.checkpoint import read_checkpoint
from overedit.flows.edit import edit_file
from tests.support.synthetic_run import fill

REQUESTS = [
    {
        "prompt": f"The capital of Land{i} is",
        "subject": f"Land{i}",
        "target_new": f"Port {i}",
    }
    for i in range(6)
]
SETTINGS: dict[str, dict[str, Any]] = {
    "ft_m": {"site": "1.down_proj", "max_steps": 2},
    "locft_bf": {"site": "1.down_proj", "epochs": 2},
    "ultraedit": {"sites": ["1.down_proj"], "learning_rate": 1e-3},
    "memit": {
        "layers": [0, 1],
        "values": {"num_steps": 2},
        "contexts": {"starts": ["A"], "num_tokens": 2},
    },
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    fill(tmp_path / "warehouse", by_count=False)
    return tmp_path


def loaded(folder: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def bits(model: torch.nn.Module) -> dict[str, str]:
    return {name: checksum(parameter) for name, parameter in model.named_parameters()}


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "prefect", "vllm", "duckdb", "pyarrow", "matplotlib", "datasets", "lm_eval"}
    code = f"import sys, overedit; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_query_over_two_folders(home: Path) -> None:
    results = overedit.read(home)
    sql = "SELECT count(*) AS n FROM leaderboard JOIN other.leaderboard USING (run, trajectory, order_seed)"
    assert results.sql(sql, attach={"other": home}).to_pylist() == [{"n": 3}]
    with pytest.raises(ValueError, match="there is no warehouse in"):
        results.sql(sql, attach={"other": home / "nowhere"})
    with pytest.raises(ValueError, match="attach: 'my results' cannot name a warehouse; accepted: letters"):
        results.sql(sql, attach={"my results": home})


def test_another_url_is_no_home() -> None:
    with pytest.raises(ValueError, match="home: 'http://bucket/x' is a URL of 'http'; accepted: a folder, or a URL"):
        overedit.read("http://bucket/x")


@pytest.mark.parametrize("name", SETTINGS)
def test_an_edit_has_the_bits_of_an_editing_job(name: str, tiny_model: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "texts.txt"
    corpus.write_text("".join(f"The sun is over Land{i}.\n" for i in range(40)))
    settings = SETTINGS[name] | ({"covariance": {"corpus": str(corpus)}} if name == "memit" else {})
    (tmp_path / "rows.json").write_text(json.dumps([{"case_id": str(i + 1), **row} for i, row in enumerate(REQUESTS)]))
    keys = ["turn_size=4", *(f"{key}={json.dumps(value)}" for key, value in settings.items())]
    data = ["dataset.columns={subject: subject}", "dataset.order_seed=null"]
    edit_file(str(tiny_model), name, tmp_path / "rows.json", tmp_path / "out", dataset="file", settings=[*keys, *data])
    expected = read_checkpoint(tmp_path / "out").tensors()
    model, tokenizer = loaded(tiny_model)
    before = bits(model)
    edit = overedit.edit(model, tokenizer, REQUESTS, {"method": name, **settings}, turn_size=4)
    assert set(edit.parameters) == set(expected)
    for parameter, tensor in expected.items():
        assert torch.equal(model.get_parameter(parameter), tensor), parameter
    assert sum(turn["last"] - turn["first"] + 1 for turn in edit.log) == len(REQUESTS)
    edit.undo()
    assert bits(model) == before


def test_a_with_block_gives_the_weights_back_also_after_an_error(tiny_model: Path) -> None:
    model, tokenizer = loaded(tiny_model)
    before = bits(model)
    with pytest.raises(KeyError), overedit.edit(model, tokenizer, REQUESTS, {"method": "ft_m", **SETTINGS["ft_m"]}):
        assert bits(model) != before
        raise KeyError
    assert bits(model) == before


def test_an_edit_that_fails_leaves_the_model_as_it_was(tiny_model: Path) -> None:
    model, tokenizer = loaded(tiny_model)
    before = bits(model)
    too_long = EditRequest(case_id="long", prompt="Land1 " * 300, target_new="x")
    requests = [*(EditRequest(case_id=str(i), **row) for i, row in enumerate(REQUESTS)), too_long]
    with pytest.raises(ValueError, match=r"request long: .* tokens exceed the model's context"):
        overedit.edit(model, tokenizer, requests, {"method": "ultraedit", **SETTINGS["ultraedit"]}, turn_size=2)
    assert bits(model) == before


@pytest.mark.parametrize(
    ("requests", "method", "words"),
    [
        ([], "ft_m", "requests: at least one is needed, got none"),
        ([{"prompt": "The"}], "ft_m", "requests: number 1:\n  target_new: is needed and not given"),
        (REQUESTS, "ft_x", "unknown 'ft_x'; accepted: 'locft_bf'"),
        (REQUESTS, {"method": "ft_m", "lr": 1}, "there is no such key; .*learning_rate"),
        (REQUESTS, {"method": "ft_m", "site": "9.down_proj"}, "layer 9 does not exist: the model has layers 0 to 1"),
    ],
)
def test_what_does_not_fit_is_said(tiny_model: Path, requests: Any, method: Any, words: str) -> None:
    model, tokenizer = loaded(tiny_model)
    with pytest.raises(ValueError, match=words):
        overedit.edit(model, tokenizer, requests, method)


def test_results_as_arrow_pandas_and_polars(home: Path) -> None:
    (run,) = overedit.read(home).runs()
    arrow = run.table("reliability_by_edit_count")
    assert arrow.num_rows > 0
    for format in ("pandas", "polars"):
        frame = run.table("reliability_by_edit_count", format=format)
        assert type(frame).__module__.startswith(format)
        assert list(frame.columns) == arrow.column_names and len(frame) == arrow.num_rows
    with pytest.raises(ValueError, match="format: 'excel' is unknown; accepted: arrow, pandas, polars"):
        run.table("reliability_by_edit_count", format="excel")


def test_a_warehouse_is_found_in_its_home_and_by_itself(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for folder in (home, home / "warehouse", str(home)):
        assert overedit.read(folder).table("runs").num_rows > 0
    with pytest.raises(ValueError, match=r"there is no warehouse in .*; run a benchmark first"):
        overedit.read(tmp_path_factory.mktemp("empty"))


def test_tables_of_a_run_are_its_own_and_names_are_not_sql(home: Path) -> None:
    (run,) = overedit.read(home).runs()
    assert overedit.Run("another", home).table("outcomes").num_rows == 0
    with pytest.raises(ValueError, match="The tables and views are"):
        run.table('outcomes"; SELECT 1; --')
    with pytest.raises(ValueError, match="one SELECT statement"):
        run.sql("DROP VIEW outcomes")


def test_a_plot_is_a_figure(home: Path) -> None:
    (run,) = overedit.read(home).runs()
    figure = overedit.plot(run)
    assert len(figure.axes) == 4
    with pytest.raises(ValueError, match="protocol: 'guessed' was not asked"):
        overedit.plot(run, protocol="guessed")


def test_lists() -> None:
    names = [method.name for method in overedit.methods()]
    assert {"locft_bf", "memit"} <= set(names)
    assert {dataset.name for dataset in overedit.datasets()} >= {"pocket", "zsre", "file"}


def test_a_configuration_that_is_wrong_starts_no_server(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="config:\n  turn_size: "):
        overedit.run(
            {"name": "r", "home": str(tmp_path), "dataset": {"name": "pocket"}, "methods": ["ft_m"]}, turn_size=0
        )
    with pytest.raises(ValueError, match=r"missing\.yaml does not exist"):
        overedit.run(tmp_path / "missing.yaml")
