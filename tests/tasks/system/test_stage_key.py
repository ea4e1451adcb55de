from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import overedit.editing as editing
from overedit.tasks.system.stage_key import stage_key


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two methods that share a module, in a package path beside the real one."""
    (tmp_path / "shared_step.py").write_text('"""Shared."""\n\ndef step(x):\n    return x + 1\n')
    for name in ("first_method", "second_method"):
        (tmp_path / f"{name}.py").write_text(
            "from overedit.editing.shared_step import step\n\ndef run(x):\n    return step(x)\n"
        )
    monkeypatch.setattr(editing, "__path__", [*editing.__path__, str(tmp_path)])
    yield tmp_path
    for name in ("shared_step", "first_method", "second_method"):
        sys.modules.pop(f"overedit.editing.{name}", None)


def key(name: str, **inputs: Any) -> str:
    return stage_key(import_module(f"overedit.editing.{name}"), **inputs)


def keys() -> tuple[str, str]:
    return key("first_method", seed=0), key("second_method", seed=0)


def test_a_changed_line_makes_its_users_anew_and_no_other(code: Path) -> None:
    first, second = keys()
    (code / "first_method.py").write_text(
        "from overedit.editing.shared_step import step\n\ndef run(x):\n    return step(x) * 2\n"
    )
    changed_first, same_second = keys()
    assert changed_first != first
    assert same_second == second


def test_a_changed_library_line_reaches_all_who_import_it(code: Path) -> None:
    first, second = keys()
    (code / "shared_step.py").write_text("def step(x):\n    return x + 2\n")
    assert all(now != before for now, before in zip(keys(), (first, second), strict=True))


def test_comments_and_docstrings_change_nothing(code: Path) -> None:
    before = keys()
    (code / "shared_step.py").write_text(
        '"""Other words."""\n\ndef step(x):\n    """One more."""  # a comment\n    return x + 1\n'
    )
    assert keys() == before


def test_inputs_count(code: Path) -> None:
    assert key("first_method", seed=0) != key("first_method", seed=1)


def test_a_module_without_code_of_ours_is_refused() -> None:
    for module in (json, ModuleType("overedit.editing.no_such_module"), ModuleType("overedit.tasks.measuring")):
        with pytest.raises(ValueError, match=f"stage_key: {module.__name__} has no source file"):
            stage_key(module)
