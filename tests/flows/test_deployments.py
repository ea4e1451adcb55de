"""The timetable and the benchmark files fit the configuration as it is now."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from overedit.flows.config.loading import read_yaml, validated, with_settings
from overedit.flows.config.locate import LocateConfig
from overedit.flows.config.models import BenchmarkConfig, ScanConfig
from overedit.flows.config.short_form import ShortForm
from overedit.flows.config.tuning import TuneConfig
from overedit.flows.deployed import run_tags
from overedit.flows.launch import FLOW_RUN_TAG, prepare_operation
from tests.support.paths import REPOSITORY

DEPLOYMENTS = REPOSITORY / "deployments"
BENCHMARKS = sorted((DEPLOYMENTS / "benchmarks").glob("*.yaml"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_every_benchmark_file_is_a_configuration(path: Path) -> None:
    kinds = {"scan": ScanConfig, "tune": TuneConfig, "locate": LocateConfig}
    kind = kinds.get(path.stem.partition("-")[0], BenchmarkConfig)
    config = validated(kind, read_yaml(path), where=path.name)
    assert config.name == path.stem


def deployments() -> dict[str, Any]:
    return {each["name"]: each for each in yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]}


def test_nightly_and_weekly_are_scheduled() -> None:
    assert set(deployments()) == {"nightly", "weekly", "benchmark", "scan"}
    assert {name for name, each in deployments().items() if each["schedules"]} == {"nightly", "weekly"}
    assert all(each["schedules"][0]["cron"] for each in deployments().values() if each["schedules"])


@pytest.mark.parametrize("name", ["nightly", "weekly"])
def test_a_scheduled_deployment_is_a_configuration_and_its_tags_say_of_what(name: str) -> None:
    deployment = deployments()[name]
    assert deployment["parameters"] == {"config": name}
    config = validated(BenchmarkConfig, ShortForm(config=name).content(), where=name)
    assert config.name == name
    assert set(deployment["tags"]) == {FLOW_RUN_TAG, name, *run_tags(config)}


@pytest.mark.parametrize("name", ["nightly", "weekly", "benchmark", "scan"])
def test_a_deployments_flow_takes_its_parameters(name: str) -> None:
    deployment = deployments()[name]
    module, _, function = deployment["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), function)
    flow.validate_parameters(deployment["parameters"])
    assert FLOW_RUN_TAG in deployment["tags"]
    assert set(flow.parameters.properties) >= {
        "config",
        "name",
        "model",
        "dataset",
        "methods",
        "limit",
        "settings",
        "home",
    }
    assert all("anyOf" not in each for each in flow.parameters.properties.values()), "one plain field each in the form"


def test_the_heartbeats_that_the_automation_waits_for_are_sent_by_every_flow_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("PREFECT_LOGGING_EXTRA_LOGGERS", "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW")
    for name in (*names, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"):
        monkeypatch.delenv(name, raising=False)
    prepare_operation()
    for deployment in deployments().values():
        settings = deployment["work_pool"]["job_variables"]["env"]
        assert settings == {name: os.environ[name] for name in settings}
        assert set(settings) == {*names, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"}
    automations = yaml.safe_load((DEPLOYMENTS / "automations.yaml").read_text())
    (dead,) = (each for each in automations if each["name"] == "overedit-dead-runs")
    assert dead["trigger"]["within"] == 3 * int(os.environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])


ENDED = (
    *("Completed", "Crashed", "GateFailed", "First instance", "No change, nothing recomputed", "No number moved"),
    *("Nothing recomputed, 1 number moved", "3 numbers moved", "12 numbers moved, 2 not comparable"),
)


@pytest.mark.parametrize("state", ENDED)
def test_a_run_that_has_ended_in_any_state_is_not_taken_for_dead(state: str) -> None:
    from prefect.server.events.schemas.automations import EventTrigger

    automations = yaml.safe_load((DEPLOYMENTS / "automations.yaml").read_text())
    (dead,) = (each for each in automations if each["name"] == "overedit-dead-runs")
    trigger = EventTrigger.model_validate(dead["trigger"])

    def counts(event: str) -> bool:
        return trigger.event_pattern.match(event) is not None and trigger.expects(event)

    assert counts(f"prefect.flow-run.{state}")
    assert not any(counts(f"prefect.flow-run.{other}") for other in ("Running", "Cancelling", "Pending", "Paused"))


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
    assert labels == ("LocFT-BF (epochs=9)", "LocFT-BF (epochs=5)", "FT-M")
