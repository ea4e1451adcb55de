from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from overedit.editing.methods.registry import METHODS
from overedit.editing.trajectory import runner
from overedit.tasks.evaluation import evaluator, perplexity, probing
from overedit.tasks.system.stage_key import SourceIndex, stage_key
from tests.support.paths import REPOSITORY


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """Two methods that share a module."""
    (tmp_path / "shared_step.py").write_text('"""Shared."""\n\ndef step(x):\n    return x + 1\n')
    for name in ("first_method", "second_method"):
        (tmp_path / f"{name}.py").write_text(
            "from overedit.editing.shared_step import step\n\ndef run(x):\n    return step(x)\n"
        )
    return tmp_path


def key(code: Path, name: str, **inputs: int) -> str:
    return SourceIndex({"overedit.editing": code}).key(ModuleType(f"overedit.editing.{name}"), **inputs)


def keys(code: Path) -> tuple[str, str]:
    return key(code, "first_method", seed=0), key(code, "second_method", seed=0)


def test_a_changed_line_recomputes_its_users_and_no_other(code: Path) -> None:
    first, second = keys(code)
    (code / "first_method.py").write_text(
        "from overedit.editing.shared_step import step\n\ndef run(x):\n    return step(x) * 2\n"
    )
    changed_first, same_second = keys(code)
    assert changed_first != first
    assert same_second == second


def test_a_changed_library_line_reaches_all_who_import_it(code: Path) -> None:
    before = keys(code)
    (code / "shared_step.py").write_text("def step(x):\n    return x + 2\n")
    assert all(now != then for now, then in zip(keys(code), before, strict=True))


def test_comments_and_docstrings_change_nothing(code: Path) -> None:
    before = keys(code)
    (code / "shared_step.py").write_text(
        '"""Other words."""\n\ndef step(x):\n    """One more."""  # a comment\n    return x + 1\n'
    )
    assert keys(code) == before


def test_inputs_count(code: Path) -> None:
    assert key(code, "first_method", seed=0) != key(code, "first_method", seed=1)


def test_each_file_is_read_once(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, read = SourceIndex({"overedit.editing": code}), []
    plain = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path: (read.append(path.name), plain(path))[1])
    for _ in range(3):
        index.key(ModuleType("overedit.editing.first_method"), ModuleType("overedit.editing.second_method"))
    assert sorted(read) == ["first_method.py", "second_method.py", "shared_step.py"]


def test_a_module_without_code_of_ours_is_refused() -> None:
    for module in (json, ModuleType("overedit.editing.no_such_module"), ModuleType("overedit.tasks.measuring")):
        with pytest.raises(ValueError, match=f"stage key: {module.__name__} has no source file"):
            stage_key(module)


def test_a_changed_line_of_a_method_changes_its_own_key_and_no_other_methods(tmp_path: Path) -> None:
    """The real methods, in a copy; R-ROME is ROME's code with another key."""
    shutil.copytree(REPOSITORY / "editing", tmp_path / "editing")
    modules = {name: sys.modules[method.config.__module__] for name, method in METHODS.items()}

    def all_keys() -> dict[str, str]:
        index = SourceIndex({"overedit.editing": tmp_path / "editing"})
        return {name: index.key(module, runner) for name, module in modules.items()}

    before = all_keys()
    assert len(set(before.values())) == len(METHODS)
    for name in METHODS:
        path = tmp_path / "editing" / "methods" / f"{name}.py"
        text = path.read_text()
        path.write_text(text + "\nONE_MORE = 1\n")
        changed = {other for other, now in all_keys().items() if now != before[other]}
        assert changed == {name} | ({"r_rome"} if name == "rome" else set())
        path.write_text(text)


def test_the_code_of_a_method_does_not_reach_what_is_measured() -> None:
    index = SourceIndex()
    for stage in (evaluator, probing, perplexity):
        made_of = index.imported_by(stage)
        assert stage.__name__ in made_of
        assert not made_of & {method.config.__module__ for method in METHODS.values()}
