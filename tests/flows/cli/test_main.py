"""Bad input: exit code 2, one message that names the key, the value and what is accepted, and nothing left behind."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from overedit.editing.methods.locate_then_edit.covariance import SecondMoment
from overedit.editing.storage.disk_space import NoSpaceError
from overedit.flows.cli.main import main
from overedit.tasks.editing_job.covariance_files import write_covariance
from tests.support.benchmark_run import configuration
from tests.support.command_line import ROWS, Run


@pytest.mark.usefixtures("own_tasks_read_once")
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("methods.0.method=rom", "accepted: "),
        ("dataset.name=zser", "did you mean 'zsre'?"),
        ("edit_count=[1]", "did you mean edit_counts?"),
        ("methods.0.sites=1", "did you mean site?"),
        ("methods.0.site=7.down_proj", "layer 7 does not exist: the model has layers 0 to 1"),
        ("methods.0.site=1.dwn_proj", "down_proj"),
        ("methods.0.learning_rate=fast", "given: 'fast'"),
        ("dataset.path=none.json", "none.json"),
        ("dataset.columns.prompt=question", "question"),
        ("edit_counts=[1, 1]", "must increase"),
        ("edit_counts=[10, 1]", "must increase"),
        ("edit_counts=[1, 21]", "21 edits are asked for, but the data holds 20 requests"),
        ("name=../up", "name"),
        (
            "name=my run",
            "name: not a run's name; accepted: 1 to 64 letters, digits, dots, hyphens and underscores, "
            "the first a letter or a digit, e.g. my-run (given: 'my run')",
        ),
        (
            "home=ftp://user:secret@host/x",
            "home: a URL of 'ftp'; accepted: a folder, or a URL such as s3://BUCKET/FOLDER or gs://BUCKET/FOLDER "
            "(given: 'ftp://...@host/x')",
        ),
        ("model=./nowhere", "there is no folder ./nowhere"),
        ("dataset.limit=21", "limit: 21"),
        ("order_seeds=[]", "order_seeds"),
        ("capability.suite=glue", "there is no suite 'glue'; accepted: locft, should-we-edit, quick"),
        ("capability={tasks: [sst2], files: {sst2: no.jsonl}}", "files.sst2: there is no file or folder no.jsonl"),
        pytest.param("capability.tasks=[sst3]", "no task 'sst3'; similar names: sst2", marks=pytest.mark.long),
    ],
)
def test_a_configuration_that_is_wrong(
    overedit: Run, files: dict[str, str], setting: str, words: str, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, out, err = overedit("run", files["config"], "--set", setting)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before, "nothing half-written stays behind"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"{not json", "not JSON"),
        (b"[]", "no rows"),
        (json.dumps([*ROWS[:3], {"prompt": "The capital of X is"}]).encode(), "row 4"),
        (json.dumps([ROWS[0] | {"target_new": ""}]).encode(), "row 1"),
        (json.dumps([ROWS[0] | {"prompt": "word " * 400}]).encode(), "context"),
    ],
)
def test_data_that_is_wrong(overedit: Run, files: dict[str, str], content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    code, _, err = overedit("edit", "--model", files["model"], "--method", "ft_m", "--requests", files["rows"],
                            "--out", "out", "--set", "site=1.down_proj")  # fmt: skip
    assert code == 2
    assert words in err
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


OTHER = {
    "site": "0.down_proj",
    "model_digest": "0" * 16,
    "model_dtype": "float32",
    "corpus": "corpus.txt",
    "corpus_digest": "1" * 16,
    "num_samples": None,
    "max_length": 64,
    "dtype": "float64",
}
MEMIT = {"method": "memit", "layers": [0, 1], "covariance": {"corpus": "corpus.txt"}}


@pytest.fixture
def locate_then_edit(files: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A configuration of MEMIT that is right, and its corpus."""
    (tmp_path / "corpus.txt").write_text("A town is a place.\nCity1 is a town.\n")
    config = yaml.safe_load((tmp_path / "c.yaml").read_text()) | {"methods": [MEMIT]}
    config["dataset"]["columns"] = {"case_id": "case_id", "subject": "subject"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    return files


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("methods.0.layers=[1, 0]", "layers: [1, 0] must increase"),
        ("methods.0.layers=[1, 2]", "layer 2 does not exist: the model has layers 0 to 1"),
        ("methods.0.part=dwn_proj", "down_proj"),
        ("methods.0.distribution=single", "'single' edits one layer, layers names 2"),
        ("methods.0.covariance.corpus=none.txt", "methods.covariance.corpus: "),
        ("methods.0.covariance.corpus=empty.txt", "empty.txt holds no text"),
        ("methods.0.covariance.path=other.safetensors", "weights"),
        ("methods.0.contexts.templates=[['{}'], ['Today']]", "context template 'Today' must hold {} exactly once"),
        ("dataset.path=strange.json", "request 3: its subject 'Atlantis' does not occur in its prompt"),
        ("dataset.path=bare.json", "methods: memit needs subjects, and case "),
    ],
)
def test_locate_then_edit_that_cannot_be(
    overedit: Run, locate_then_edit: dict[str, str], setting: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    strange = [row | {"subject": "Atlantis"} if row["case_id"] == 3 else row for row in ROWS]
    (tmp_path / "strange.json").write_text(json.dumps(strange))
    bare = [row | {"subject": ""} for row in ROWS]
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    moment = SecondMoment(torch.eye(48, dtype=torch.float64), 9, 0.1)
    write_covariance(tmp_path / "other.safetensors", moment, OTHER)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = overedit("run", locate_then_edit["config"], "--set", setting)
    assert (code, out) == (2, "")
    assert words in err
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_one_editing_job_and_its_export(overedit: Run, files: dict[str, str], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    code, out, _ = overedit("edit", "--model", files["model"], "--method", "ft_m", "--requests", files["rows"],
                            "--out", "out", "--set", "site=1.down_proj", "--set", "num_edits=3")  # fmt: skip
    assert code == 0, out
    assert out.startswith("3 edits")
    record = json.loads((tmp_path / "out" / "checkpoint.json").read_text())
    tensors = load_file(tmp_path / "out" / "weights.safetensors")
    assert record["edit_count"] == 3
    assert list(tensors) == list(record["tensors"]) == ["model.layers.1.mlp.down_proj.weight"]

    assert overedit("export", "out", "exported")[0] == 0
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    assert torch.equal(exported.model.layers[1].mlp.down_proj.weight, tensors["model.layers.1.mlp.down_proj.weight"])
    code, _, err = overedit("export", "out", "exported")
    assert (code, "is there already" in err) == (2, True)


def test_lists(overedit: Run) -> None:
    code, out, _ = overedit("methods")
    assert code == 0
    assert all(name in out for name in ("locft_bf", "ultraedit", "rome", "memit", "alphaedit"))
    code, out, _ = overedit("datasets")
    assert code == 0
    assert all(name in out for name in ("zsre", "counterfact", "wikibigedit", "ultraeditbench", "pocket", "file"))
    code, out, _ = overedit("suites")
    assert code == 0
    assert all(word in out for word in ("locft", "2509.22072", "nq_open", "should-we-edit", "toxigen", "quick"))


def test_what_is_to_be_typed_is_whole_on_a_narrow_terminal(overedit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for verb, longest in {
        "methods": "meta-llama/Meta-Llama-3-8B-Instruct",
        "presets": "neighbourhood_magnitude:",
        "suites": "truthfulqa_mc1",
    }.items():
        code, out, _ = overedit(verb)
        assert code == 0 and "…" not in out
        assert max(map(len, out.splitlines())) <= 80
        assert longest in out


@pytest.mark.parametrize("arguments", [("sql", "SELECT 1"), ("report", "r")])
def test_no_warehouse_yet(overedit: Run, arguments: tuple[str, ...]) -> None:
    code, _, err = overedit(*arguments)
    assert code == 2
    assert "there is no warehouse" in err


def test_a_full_disk_ends_with_advice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(**_: Any) -> None:
        raise NoSpaceError("/x could not be written: No space left on device; what was written before is whole")

    monkeypatch.setattr("overedit.flows.cli.main.app", full)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "overedit prune removes weights" in capsys.readouterr().err


def test_prefect_is_imported_after_its_settings_are_made() -> None:
    """Prefect reads the environment when it is imported."""
    check = (
        "import sys, overedit.flows.cli.main as main; assert 'prefect' not in sys.modules; main.prepare_prefect();"
        "from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS as t; print(t.value())"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    done = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "120"


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("run", "demo"),
        ("demo",),
        ("plan", "demo"),
        ("scan", "scan-pocket"),
        ("tune", "tune-pocket"),
        ("locate", "locate-pocket"),
    ],
)
def test_the_home_of_the_command_line_replaces_that_of_the_configuration(
    overedit: Run, command: tuple[str, ...]
) -> None:
    code, _, err = overedit(*command, "--home", "ftp://user:secret@host/x")
    assert code == 2
    assert "home: a URL of 'ftp'; accepted: a folder, or a URL such as s3://BUCKET/FOLDER" in err
    assert "secret" not in err


def test_a_complete_run_asked_again_starts_nothing(
    overedit: Run,
    prefect_server: None,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    method = {"method": "ft_m", "site": "1.down_proj", "max_steps": 2}
    content = configuration(tmp_path / "home", tiny_model, methods=[method], edit_counts=[1])
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    code, table, _ = overedit("run", "c.yaml")
    assert code == 0
    monkeypatch.setattr("overedit.flows.benchmark.run_benchmark", lambda *_, **__: pytest.fail("it is run again"))
    with caplog.at_level(logging.INFO):
        assert overedit("run", "c.yaml")[:2] == (0, table)
    assert "run 'r' was complete: nothing was edited or measured again" in caplog.text
    heavy = {"torch", "transformers", "prefect", "vllm", "lm_eval", "matplotlib"}
    loaded = f"print(sorted({heavy!r} & set(sys.modules)))"
    command = f"import sys; from overedit.flows.cli.main import main\ntry: main()\nfinally: {loaded}"
    shown = subprocess.run(
        [sys.executable, "-c", command, "run", "c.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert shown.stdout == f"{table}[]\n", shown.stderr
    assert shown.stderr == "run 'r' was complete: nothing was edited or measured again\n"
