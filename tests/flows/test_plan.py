"""What a run finds out and says before anything long starts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import overedit.tasks.evaluation.capability.task_loading
from overedit.flows.benchmark import benchmark
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.plan import make_plan
from overedit.tasks.evaluation.power_analysis import detection_lines
from tests.support.lm_eval_tasks import CHOICE, write_tasks


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> BenchmarkConfig:
    """A run of one edit, with 30 items of general ability."""
    rows = [{"prompt": "The capital of Land1 is", "target_new": "Port 1"}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    items = [{"prompt": f"The river of Land{i} is", "choices": ["Orm", "Ulm"], "label": i % 2} for i in range(40)]
    write_tasks(tmp_path / "tasks", items, small_rivers=CHOICE)
    content: dict[str, Any] = {
        "name": "r",
        "home": str(tmp_path),
        "model": str(tiny_model),
        "dataset": {"name": "file", "path": str(tmp_path / "rows.json")},
        "methods": [{"method": "ft_m", "site": "1.down_proj", "max_steps": 1}],
        "edit_counts": [1],
        "capability": {
            "tasks": ["small_rivers"],
            "include_path": str(tmp_path / "tasks"),
            "trust_task_code": True,
            "limit": 30,
        },
        "evaluation": {"max_tokens": 4},
        "engine": {"kind": "transformers"},
    }
    return BenchmarkConfig.model_validate(content)


def test_a_run_says_first_what_it_can_see_and_a_complete_one_loads_no_benchmark(
    config: BenchmarkConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = detection_lines(config.capability, {"small_rivers": 30})
    assert list(make_plan(config).can_see) == expected
    assert "small_rivers, 30 items: a drop of" in expected[0]
    with caplog.at_level(logging.INFO, "overedit.flows.benchmark"):
        benchmark.fn(config)
    assert caplog.messages[0] == expected[0]

    def loaded(*_: Any) -> None:
        raise AssertionError("the benchmarks were loaded")

    monkeypatch.setattr(overedit.tasks.evaluation.capability.task_loading, "load_tasks", loaded)
    assert make_plan(config).can_see == ()
    other = config.capability.model_copy(update={"limit": 20})
    with pytest.raises(AssertionError, match="were loaded"):
        make_plan(config.model_copy(update={"name": "other", "capability": other}))
    never = config.capability.model_copy(update={"when": "never"})
    assert make_plan(config.model_copy(update={"name": "other", "capability": never})).can_see == ()
