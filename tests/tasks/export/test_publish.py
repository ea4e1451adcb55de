"""A run in an experiment tracker: each tracker's own client reads back what was written, without a network."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from overedit.tasks.export.publish import publish
from overedit.tasks.export.rows import TrackedRun, tracked_runs
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.command_line import Run
from tests.support.synthetic_run import COUNTS, METHODS, RUN, fill, fill_samples

REPORT = "<!doctype html><title>The report</title>"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    fill_samples(fill(tmp_path / "warehouse", cases=10, by_count=False), items=20)
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / f"{RUN}.html").write_text(REPORT)
    return tmp_path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No address of a server, and no settings of the developer's."""
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "of-wandb"))


def expected(home: Path) -> dict[str, TrackedRun]:
    return {one.name: one for one in tracked_runs(Warehouse(home / "warehouse"), RUN)}


def test_a_trajectory_has_the_numbers_of_the_views(home: Path) -> None:
    found = expected(home)
    assert list(found) == [f"{RUN}: {label}" for _, label in sorted(METHODS.items())]
    one = found[f"{RUN}: FT-L"]
    assert list(one.metrics) == [0, *COUNTS]
    assert one.parameters["method.epochs"] == 25 and one.parameters["edit_counts"] == json.dumps(list(COUNTS))
    assert one.tags["overedit.trajectory"] == "ft_l" and one.tags["overedit.collapse_at"] == "10"
    warehouse = Warehouse(home / "warehouse")
    for view, column, name in (
        ("reliability_by_edit_count", "value", "generated/reliability"),
        ("reliability_by_edit_count", "low", "generated/reliability_low"),
        ("capability_by_edit_count", "value", "capability/mean"),
        ("perplexity_by_edit_count", "ratio", "perplexity_ratio/held_out"),
        ("cost_per_edit", "seconds_per_edit", "cost/seconds_per_edit"),
    ):
        which = {
            "reliability_by_edit_count": "measure = 'reliability' AND protocol = 'generated'",
            "capability_by_edit_count": "task = 'mean'",
        }.get(view, "true")
        sql = f"SELECT edit_count, {column} AS value FROM {view} WHERE trajectory = 'ft_l' AND {which}"
        wanted = {row["edit_count"]: row["value"] for row in warehouse.query(sql).to_pylist()}
        assert {count: at[name] for count, at in one.metrics.items() if name in at} == wanted and wanted, name
    assert one.metrics.keys() == {0, *COUNTS}
    assert expected(home) == found


def test_mlflow(home: Path, offline: None) -> None:
    mlflow = pytest.importorskip("mlflow")
    lines = list(publish(home, RUN, to="mlflow", project="editing"))
    assert [line.partition(": written to ")[0] for line in lines] == list(expected(home))
    again = list(publish(home, RUN, to="mlflow", project="editing"))
    assert all("is in sqlite:///" in line and line.endswith(" already") for line in again)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home}/mlflow.db")
    experiment = client.get_experiment_by_name("editing")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == expected(home).keys()
    for name, wanted in expected(home).items():
        run = runs[name]
        assert run.info.status == "FINISHED"
        assert run.data.params == {key: str(value) for key, value in wanted.parameters.items()}
        assert run.data.tags.items() >= wanted.tags.items()
        by_name: dict[str, dict[int, float]] = {}
        for count, numbers in wanted.metrics.items():
            for metric, value in numbers.items():
                by_name.setdefault(metric, {})[count] = value
        assert run.data.metrics.keys() == by_name.keys()
        for metric in ("generated/reliability", "capability/mean_low", "perplexity/held_out"):
            history = client.get_metric_history(run.info.run_id, metric)
            assert {point.step: point.value for point in history} == pytest.approx(by_name[metric])
        page = client.download_artifacts(run.info.run_id, f"{RUN}.html", str(home))
        assert Path(page).read_text() == REPORT


def test_wandb(home: Path, offline: None) -> None:
    pytest.importorskip("wandb")
    list(publish(home, RUN, to="wandb", project="editing"))
    again = list(publish(home, RUN, to="wandb", project="editing"))
    assert len(again) == 3 and all(line.endswith(" already") for line in again)
    folders = {wanted.id: wanted for wanted in expected(home).values()}
    found = sorted((home / "wandb").glob("offline-run-*"))
    assert {folder.name.rpartition("-")[2] for folder in found} == folders.keys()
    for folder in found:
        wanted = folders[folder.name.rpartition("-")[2]]
        records = read_records(next(folder.glob("run-*.wandb")))
        (run,) = (record.run for record in records if record.HasField("run"))
        assert (run.project, run.display_name, run.run_group) == ("editing", wanted.name, RUN)
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert config.items() >= (wanted.parameters | wanted.tags).items()
        history = [
            {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            for record in records
            if record.HasField("history")
        ]
        numbers = {row["edit_count"]: row for row in history if "report" not in row}
        assert list(numbers) == list(wanted.metrics)
        for count, at in wanted.metrics.items():
            assert numbers[count].items() >= at.items()
        (page,) = folder.glob("files/media/html/report_*.html")
        assert page.read_text() == REPORT


def read_records(path: Path) -> list[Any]:
    """The records of an offline run: a log of blocks of 32 KiB, as LevelDB writes it, after a head of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    content, at, payload, records = path.read_bytes(), 7, b"", []
    assert content.startswith(b":W&B")
    while at < len(content):
        if (left := 32_768 - at % 32_768) < 7:  # too few for the head of a piece
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        payload += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            records.append(wandb_internal_pb2.Record.FromString(payload))
            payload = b""
    return records


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed(
    overedit: Run, home: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    code, out, err = overedit("publish", RUN, "--to", package)
    assert (code, out) == (2, "")
    assert err == (
        f"overedit: to: '{package}' needs a package that is not installed: pip install 'overedit[{package}]'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["publish", RUN, "--to", "tensorboard"], "to: 'tensorboard' is unknown; choose one of mlflow, wandb"),
        (["publish", "other", "--to", "mlflow"], f"run: 'other' is not in {{home}}/warehouse; its runs are: {RUN}"),
        (["publish", "../up", "--to", "wandb"], "name: '../up' is not a run's name; accepted"),
        (["publish", RUN, "--to", "wandb", "--home", "nowhere"], "there is no warehouse in"),
    ],
)
def test_what_is_wrong_is_one_message(overedit: Run, home: Path, arguments: list[str], said: str) -> None:
    before = sorted(home.rglob("*"))
    code, out, err = overedit(*arguments)
    assert (code, out) == (2, "") and said.format(home=home) in err and len(err.splitlines()) == 1
    assert sorted(home.rglob("*")) == before
