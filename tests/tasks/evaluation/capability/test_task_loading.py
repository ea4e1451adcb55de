"""The loader keeps the task objects of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from overedit.tasks.evaluation.capability import task_loading
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.capability.task_loading import LoadedTasks, TaskLoader


def test_tasks_are_loaded_again_only_if_a_local_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[CapabilityOptions] = []
    monkeypatch.setattr(task_loading, "load_tasks", lambda options: loads.append(options) or LoadedTasks({}, {}))
    items = tmp_path / "items.jsonl"
    items.write_text('{"a": 1}\n')
    loader = TaskLoader(CapabilityOptions(tasks=("t",), files={"t": items}))
    assert loads == [], "nothing is loaded before it is needed"
    first = loader.load()
    assert loader.load() is first
    items.write_text('{"a": 2}\n')
    assert loader.load() is not first
    assert loads == [loader.options] * 2
