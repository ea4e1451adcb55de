"""Whatever a configuration file or a setting says, it is a configuration, or refused with one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import given

from overedit.flows.config.loading import read_yaml, validated, with_settings
from overedit.flows.config.models import BenchmarkConfig
from tests.fuzz import strategies
from tests.support.fuzzing import Outcome


@given(text=strategies.yaml_texts)
def test_any_text(tmp_path: Path, outcome: Outcome, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    outcome(lambda: validated(BenchmarkConfig, read_yaml(path), where=path.name), "c.yaml")


@given(content=strategies.configurations)
def test_any_mapping(outcome: Outcome, content: dict[str, Any]) -> None:
    config = outcome(lambda: validated(BenchmarkConfig, content, where="c.yaml"), "c.yaml")
    if config is not None:
        config.model_dump_json()
        assert config.labels


@given(content=strategies.configurations)
def test_any_mapping_as_a_file(tmp_path: Path, outcome: Outcome, content: dict[str, Any]) -> None:
    path = tmp_path / "c.yaml"
    text = yaml.safe_dump(content)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    outcome(lambda: validated(BenchmarkConfig, read_yaml(path), where=path.name), "c.yaml")


@given(setting=strategies.settings_given)
def test_any_setting(outcome: Outcome, setting: str) -> None:
    outcome(lambda: validated(BenchmarkConfig, with_settings(strategies.RIGHT, [setting]), where="c.yaml"), "")
