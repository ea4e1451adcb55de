"""The timetable and the benchmark files fit the configuration as it is now."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from overedit.flows.config.loading import read_yaml, validated, with_settings
from overedit.flows.config.models import BenchmarkConfig, ScanConfig
from tests.support.paths import REPOSITORY

DEPLOYMENTS = REPOSITORY / "deployments"
BENCHMARKS = sorted((DEPLOYMENTS / "benchmarks").glob("*.yaml"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_every_benchmark_file_is_a_configuration(path: Path) -> None:
    kind = ScanConfig if path.stem.startswith("scan-") else BenchmarkConfig
    config = validated(kind, read_yaml(path), where=path.name)
    assert config.name == path.stem


def test_the_deployments_are_scheduled_and_their_parameters_fit() -> None:
    deployments = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]
    assert {d["name"] for d in deployments} == {"nightly", "weekly"}
    for deployment in deployments:
        assert deployment["entrypoint"] == "flows/benchmark.py:benchmark"
        assert deployment["schedules"][0]["cron"]
        validated(BenchmarkConfig, deployment["parameters"]["config"], where=deployment["name"])


def test_a_field_left_out_takes_the_published_preset() -> None:
    content = {
        "name": "r",
        "model": "meta-llama/Meta-Llama-3-8B-Instruct",
        "dataset": {"name": "zsre"},
        "methods": [{"method": "locft_bf", "epochs": 3}, "ultraedit"],
    }
    locft, ultraedit = validated(BenchmarkConfig, content, where="r").methods
    assert (locft.site, locft.learning_rate, locft.epochs) == ("22.down_proj", 5e-4, 3)
    assert ultraedit.sites[0] == "11.gate_proj"


def test_two_of_a_kind_are_told_apart_by_what_differs() -> None:
    content = read_yaml(DEPLOYMENTS / "benchmarks" / "demo.yaml")
    content = with_settings(content, ["methods=[{method: locft_bf}, {method: locft_bf, epochs: 5}, {method: ft_m}]"])
    labels = validated(BenchmarkConfig, content, where="demo").labels
    assert labels == ("LocFT-BF (epochs=25)", "LocFT-BF (epochs=5)", "FT-M")
