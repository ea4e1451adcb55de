"""The house's own rules, checked on the syntax trees of the code folders."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.house import House
from tests.support.paths import FILES, FOLDERS, REPOSITORY

FORBIDDEN_IN_EDITING = {"prefect", "vllm", "duckdb", "datasets", "lm_eval", "requests", "httpx", "urllib", "socket"}


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}


HERE = House(REPOSITORY)


def test_rooms_import_what_the_law_allows() -> None:
    """The law is a table: `LAW` in tests/house.py."""
    assert HERE.against_the_law == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert HERE.circles == []


def test_no_module_is_directly_in_tasks() -> None:
    assert [path.name for path in (REPOSITORY / "tasks").glob("*.py")] == ["__init__.py"]


def test_a_rooms_init_is_a_docstring_alone() -> None:
    """A face that re-exports would widen every stage key; the registry of methods is the one exception."""
    for path in FILES:
        if path.name == "__init__.py" and path.parent != REPOSITORY / "editing" / "methods":
            (only,) = ast.parse(path.read_text()).body
            assert isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant), path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_file_imports_overedit_by_its_one_name(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(path)}
    assert not roots & set(FOLDERS), "what is imported is overedit.*"
    if path.relative_to(REPOSITORY).parts[0] == "editing":
        assert not roots & FORBIDDEN_IN_EDITING
        assert "environ" not in path.read_text()


def test_no_test_module_imports_another() -> None:
    for path in sorted((REPOSITORY / "tests").rglob("*.py")):
        taken = {
            name for name in imports(path) if name.startswith("tests.") and name.split(".")[-1].startswith("test_")
        }
        assert not taken, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_size_and_shape(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= 300, "a file has up to 300 lines"
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    too_long = [f.name for f in functions if f.end_lineno is not None and f.end_lineno - f.lineno + 1 > 80]
    assert not too_long, f"functions of more than 80 lines: {too_long}"
    assert not any(isinstance(node, ast.Global) for node in ast.walk(tree)), "no module-level mutable state"
    names = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(tree)}
    assert not names & {"lru_cache", "cache"} or "functools" not in imports(path), "a cache belongs to an object"


def test_one_file_writes_weights() -> None:
    """Only `editing/model/weights.py` may put values into a model's parameters."""
    writers = (".data.", ".data =", ".data[", ".copy_(", ".addmm_(", "load_state_dict(")
    found = {
        str(path.relative_to(REPOSITORY))
        for path in FILES
        if path.relative_to(REPOSITORY).parts[0] == "editing" and any(word in path.read_text() for word in writers)
    }
    assert found == {"editing/model/weights.py"}


def test_nothing_unpickles_or_trusts_remote_code() -> None:
    for path in FILES:
        assert not imports(path) & {"pickle", "cloudpickle", "dill", "joblib"}, path
        for word in ("torch.load(", "trust_remote_code=True", "read_pickle", "yaml.load("):
            assert word not in path.read_text(), (path, word)
