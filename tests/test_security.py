"""One test a promise of docs/security.md, which also names the tests that keep it elsewhere."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from overedit.tasks.runs.prune import prune_run
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.benchmark_run import configuration, server_settings
from tests.support.command_line import ROWS, Run
from tests.support.paths import FILES, REPOSITORY
from tests.support.perplexity_rows import PARTITION, rows
from tests.support.stored_run import COUNTS, store_end, write_checkpoint
from tests.support.warm_process import WarmProcess

Put = Callable[[Path], tuple[str, ...]]


# --- nothing is unpickled --------------------------------------------------------------------------------------------

FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.jit.load", "yaml.load",
    "yaml.full_load", "yaml.unsafe_load", "pandas.read_pickle", "pd.read_pickle", "torch.hub.load",
}  # fmt: skip
FORBIDDEN_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_our_code_unpickles_and_evaluates_nothing(path: Path) -> None:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & FORBIDDEN_MODULES
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} & FORBIDDEN_MODULES
        elif isinstance(node, ast.Call):
            found |= {ast.unparse(node.func)} & FORBIDDEN_CALLS
            for keyword in node.keywords:
                allowed = {"trust_remote_code": "False", "allow_pickle": "False", "shell": "False"}
                if keyword.arg in allowed and ast.unparse(keyword.value) != allowed[keyword.arg]:
                    found.add(f"{keyword.arg}={ast.unparse(keyword.value)}")
    assert not found


def pickle_that_writes(marker: Path) -> bytes:
    """A pickle that makes a file when it is read: os.system("touch ...")."""
    command = f"touch {marker}".encode()
    return (
        b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c"
        + bytes([len(command)])
        + command
        + b"\x94\x85\x94R\x94."
    )


def torch_file_that_writes(path: Path, marker: Path) -> None:
    """The same in the format of `torch.save`."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle_that_writes(marker))
        archive.writestr("archive/version", "3\n")


@pytest.fixture
def marker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("m") / "ran"


def test_the_pickle_of_these_tests_is_armed(tmp_path: Path, marker: Path) -> None:
    (tmp_path / "x").write_bytes(pickle_that_writes(marker))
    subprocess.run(
        [sys.executable, "-c", f"import pickle; pickle.load(open({str(tmp_path / 'x')!r}, 'rb'))"], check=True
    )
    assert marker.exists()


EDIT = ("edit", "--method", "ft_m", "--out", "out", "--set", "site=1.down_proj", "--set", "num_edits=1")


@pytest.mark.parametrize("name", ["rows.json", "rows.parquet", "rows.pt", "rows.pkl"])
def test_a_pickle_as_dataset(overedit: Run, files: dict[str, str], tmp_path: Path, marker: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle_that_writes(marker))
    code, _, err = overedit(*EDIT, "--model", files["model"], "--requests", name)
    assert (code, marker.exists()) == (2, False)
    assert f"{name} is neither JSON, JSONL nor Parquet" in err


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_pickle_as_weights(overedit: Run, files: dict[str, str], tmp_path: Path, marker: Path, name: str) -> None:
    shutil.copytree(files["model"], tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch_file_that_writes(tmp_path / "model" / name, marker)
    code, _, err = overedit(*EDIT, "--model", "./model", "--requests", files["rows"])
    assert (code, marker.exists()) == (2, False), err
    assert "Traceback" not in err


def test_pickles_beside_safetensors_are_left_alone(
    overedit: Run, files: dict[str, str], tmp_path: Path, marker: Path
) -> None:
    shutil.copytree(files["model"], tmp_path / "model")
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "tokenizer.pkl", "adapter_model.bin"):
        torch_file_that_writes(tmp_path / "model" / name, marker)
    assert overedit(*EDIT, "--model", "./model", "--requests", files["rows"])[0] == 0
    assert overedit("export", "out", "exported")[0] == 0
    assert not marker.exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "checkpoint.json", "costs.json"])
def test_a_pickle_as_checkpoint(overedit: Run, files: dict[str, str], tmp_path: Path, marker: Path, name: str) -> None:
    assert overedit(*EDIT, "--model", files["model"], "--requests", files["rows"])[0] == 0
    (tmp_path / "out" / name).write_bytes(pickle_that_writes(marker))
    assert overedit("export", "out", "exported")[0] == 2
    assert overedit("verify", "out")[0] == 1
    assert not marker.exists()


@pytest.mark.parametrize("key", ["path", "corpus"])
def test_a_pickle_as_covariance(overedit: Run, files: dict[str, str], tmp_path: Path, marker: Path, key: str) -> None:
    (tmp_path / "c.safetensors").write_bytes(pickle_that_writes(marker))
    memit = f"methods=[{{method: memit, layers: [1], covariance: {{{key}: c.safetensors}}}}]"
    code, _, err = overedit("run", files["config"], "--set", memit)
    assert (code, marker.exists()) == (2, False), err
    assert "c.safetensors" in err


def test_a_pickle_in_the_warehouse(overedit: Run, tmp_path: Path, marker: Path) -> None:
    path = Warehouse(tmp_path / "warehouse").write("perplexity", rows(1), partition=PARTITION, key="k")
    Path(path).write_bytes(pickle_that_writes(marker))
    code, _, err = overedit("sql", "SELECT * FROM perplexity")
    assert code in (1, 2)
    assert "Traceback" not in err
    assert overedit("verify")[0] == 1
    assert not marker.exists()


# --- no remote code --------------------------------------------------------------------------------------------------


def test_code_in_a_model_folder_is_not_run(overedit: Run, files: dict[str, str], tmp_path: Path, marker: Path) -> None:
    """Of a known architecture, so it can be edited; its own code, for the tokenizer too, is left alone."""
    model = tmp_path / "model"
    shutil.copytree(files["model"], model)
    (model / "theirs.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    code = {"AutoConfig": "theirs.C", "AutoModelForCausalLM": "theirs.M", "AutoTokenizer": ["theirs.T", "theirs.T"]}
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        content = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps(content | {"auto_map": code, "custom_generate": "theirs"}))
    assert overedit(*EDIT, "--model", "./model", "--requests", files["rows"])[0] == 0
    assert overedit("export", "out", "exported")[0] == 0
    assert not marker.exists()


def test_code_of_an_unknown_architecture_is_refused(
    overedit: Run, files: dict[str, str], tmp_path: Path, marker: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(files["model"], model)
    (model / "theirs.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    content = json.loads((model / "config.json").read_text())
    content |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.C", "AutoModelForCausalLM": "theirs.M"}}
    (model / "config.json").write_text(json.dumps(content))
    exit_code, _, err = overedit(*EDIT, "--model", "./model", "--requests", files["rows"])
    assert (exit_code, marker.exists()) == (2, False)
    assert "asks to run code of its own (auto_map in its config.json" in err


def test_a_dataset_script_is_not_run(overedit: Run, files: dict[str, str], tmp_path: Path, marker: Path) -> None:
    script = tmp_path / "rows.py"
    script.write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    code, _, err = overedit(*EDIT, "--model", files["model"], "--requests", "rows.py")
    assert (code, marker.exists()) == (2, False)
    assert "rows.py is not JSON" in err


HOW_TASKS_RUN_CODE = (
    "doc_to_text: !function theirs.text",
    "doc_to_text: !!python/object/apply:os.system ['touch {marker}']",
    "doc_to_text: \"{{{{ cycler.__init__.__globals__.os.system('touch {marker}') }}}}\"",
)


@pytest.mark.parametrize("line", HOW_TASKS_RUN_CODE)
def test_code_in_task_files_is_not_run_by_default(
    overedit: Run, files: dict[str, str], tmp_path: Path, marker: Path, line: str
) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "theirs.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n")
    (folder / "theirs.yaml").write_text(f"task: theirs\ndataset_path: json\n{line.format(marker=marker)}\n")
    capability = "capability={tasks: [theirs], include_path: tasks}"
    code, _, err = overedit("run", files["config"], "--set", capability)
    assert (code, marker.exists()) == (2, False)
    assert "trust_task_code" in err


# --- SQL only reads --------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    Warehouse(tmp_path / "warehouse").write("perplexity", rows(3), partition=PARTITION, key="k")
    (tmp_path / "secret.csv").write_text("a\n1\n")
    return tmp_path


@pytest.mark.parametrize(
    "sql",
    [
        "COPY perplexity TO 'stolen.csv'",
        "COPY perplexity TO 'warehouse/stolen.csv'",
        "ATTACH 'stolen.db'",
        "INSERT INTO perplexity SELECT * FROM perplexity",
        "CREATE TABLE t AS SELECT 1",
        "PRAGMA database_list",
        "INSTALL httpfs",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('secret.csv')",
        "SELECT * FROM read_parquet('https://127.0.0.1:1/x.parquet')",
        "SELECT 1; COPY perplexity TO 'stolen.csv'",
    ],
)
def test_the_sql_command_reads_the_warehouse_only(overedit: Run, filled: Path, sql: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in filled.rglob("*")}
    code, out, err = overedit("sql", sql)
    assert (code, out) == (2, "")
    assert err.startswith("overedit: sql: ")
    assert {path: path.stat().st_mtime_ns for path in filled.rglob("*")} == before


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "COPY (SELECT 1) TO '{outside}/stolen.csv'",
        "ATTACH '{outside}/stolen.db'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
    ],
)
@pytest.mark.parametrize("run", [None, "demo"])
def test_a_reports_connection_reaches_nothing_outside(filled: Path, sql: str, run: str | None) -> None:
    import duckdb

    before = sorted(filled.rglob("*"))
    with Warehouse(filled / "warehouse").connect(run=run) as connection, pytest.raises(duckdb.Error):
        connection.execute(sql.format(outside=filled))
    assert sorted(filled.rglob("*")) == before


# --- no path leaves its folder ---------------------------------------------------------------------------------------

AWAY = ("../../../away", "/tmp/away", "a/../../away", "..", "a\\..\\away", "runs/../away", ".", "\u2025/away")


def test_texts_of_a_dataset_name_no_files(overedit: Run, files: dict[str, str], tmp_path: Path) -> None:
    content = [
        row | {"case_id": name, "subject": name, "prompt": f"{name} is"} for row, name in zip(ROWS, AWAY, strict=False)
    ]
    (tmp_path / "inner").mkdir()
    (tmp_path / "rows.json").write_text(json.dumps(content))
    before = set(tmp_path.iterdir())
    arguments = [argument if argument != "out" else "inner/out" for argument in EDIT if argument != "num_edits=1"][:-1]
    assert overedit(*arguments, "--model", files["model"], "--requests", "rows.json")[0] == 0
    assert set(tmp_path.iterdir()) == before
    assert {path.name for path in (tmp_path / "inner").iterdir()} == {"out"}


@pytest.mark.parametrize("label", [*AWAY, "x" * 5_000, "\x00", "FT-M (site=../../../away)"])
def test_a_trajectorys_name_is_one_folder_below_its_run(label: str, tmp_path: Path) -> None:
    from overedit.flows.config.run_identity import folder_name

    name = folder_name(label)
    assert re.fullmatch(r"[a-z0-9-]{0,100}", name)
    assert (tmp_path / "run" / name).resolve().is_relative_to(tmp_path / "run")


@pytest.mark.parametrize("name", AWAY)
@pytest.mark.parametrize("verb", ["run", "report", "prune"])
def test_a_runs_name_is_no_path(overedit: Run, files: dict[str, str], tmp_path: Path, name: str, verb: str) -> None:
    (tmp_path / "warehouse").mkdir()
    before = sorted(tmp_path.parent.rglob("*"))
    arguments = ("run", files["config"], "--set", f"name={json.dumps(name)}") if verb == "run" else (verb, name)
    assert overedit(*arguments)[0] == 2
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_pruning_follows_no_link(tmp_path: Path) -> None:
    for count in COUNTS:
        write_checkpoint(tmp_path / "runs" / "r" / "ft-m" / "order-0", count)
    store_end(tmp_path)
    elsewhere = write_checkpoint(tmp_path / "another's", 1).folder
    link = tmp_path / "runs" / "r" / "ft-m" / "order-0" / "00000001"
    shutil.rmtree(link)
    link.symlink_to(elsewhere)
    assert prune_run(tmp_path, "r")[0].pruned == (2, 3, 4)
    assert (elsewhere / "weights.safetensors").is_file()


# --- no secret is kept -----------------------------------------------------------------------------------------------

SECRETS = {
    "HF_TOKEN": "hf_SecretOfTheHub0123456789",
    "HUGGING_FACE_HUB_TOKEN": "hf_SecretOfTheOldHub01234",
    "PREFECT_API_KEY": "pnu_SecretOfThePrefectCloud",
    "AWS_SECRET_ACCESS_KEY": "SecretOfTheObjectStore0123",
    "HTTPS_PROXY": "http://someone:SecretOfTheProxy@127.0.0.1:9",
}


@pytest.mark.slow
@pytest.mark.long
def test_secrets_of_the_environment_are_in_nothing_that_a_run_leaves(
    prefect_server: None, warm_process: WarmProcess, tiny_model: Path, tmp_path: Path
) -> None:
    home, log = tmp_path / "home", tmp_path / "log.txt"
    methods = [{"method": "ft_m", "site": "1.down_proj", "max_steps": 2}]
    config = configuration(home, tiny_model, name="secrets", methods=methods, edit_counts=[1])
    (home / "c.yaml").write_text(yaml.safe_dump(config))
    done = warm_process.run(
        "from overedit.flows.cli.main import main; main()",
        "run",
        str(home / "c.yaml"),
        environment=os.environ | server_settings() | SECRETS | {"PREFECT_LOGGING_LEVEL": "DEBUG"},
        log=log,
    )
    assert done.wait() == 0, done.said()[-2000:]
    kept = {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert {"run.json", "checkpoint.json", "secrets.html"} <= {Path(path).name for path in kept}
    warehouse = Warehouse(home / "warehouse")
    kept |= {table: repr(warehouse.rows(table)).encode() for table in ("runs", "checkpoints", "outcomes", "costs")}
    assert b"completed" in kept["runs"]
    kept |= {kind: repr(records).encode() for kind, records in told_to_prefect("[secrets]").items()}
    assert b"leaderboard" in kept["artifacts"]
    kept["standard output and error"] = log.read_bytes()
    said = {name: secret for name, content in kept.items() for secret in SECRETS.values() if secret.encode() in content}
    assert not said


def told_to_prefect(name: str) -> dict[str, list[Any]]:
    """All that the server knows of the one flow run whose name ends so."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter, FlowRunFilterId, LogFilter
    from prefect.client.schemas.sorting import LogSort

    with get_client(sync_client=True) as client:
        (run,) = (run for run in client.read_flow_runs() if run.name.endswith(name))
        mine = {"any_": [run.id]}
        logs: list[Any] = []
        while page := client.read_logs(
            LogFilter.model_validate({"flow_run_id": mine}), offset=len(logs), sort=LogSort.TIMESTAMP_ASC
        ):
            logs += page
        return {
            "flow runs": [run],
            "task runs": client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))),
            "artifacts": client.read_artifacts(artifact_filter=ArtifactFilter.model_validate({"flow_run_id": mine})),
            "logs": logs,
        }


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_names_tests_that_are_there(repository: Path) -> None:
    page = (repository / "docs" / "security.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 20
    for path, name in named:
        assert re.search(rf"^def {name}\(", (repository / path).read_text(), re.M), f"there is no {path}::{name}"
    mine = set(re.findall(r"^def (test_\w+)", Path(__file__).read_text(), re.M))
    assert mine <= {name for path, name in named if path == "tests/test_security.py"}, "every test here is of a promise"
