"""What a stage's result depends on, as one short key: its inputs, and the code that makes it.

A stage whose key is in its result's file is not run again. The code counts as the syntax trees of the modules used,
docstrings left out, so a comment changes nothing and a changed line in `editing/` makes its results anew - while the
results of methods that do not use that line stay.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from overedit.editing.storage.checksums import digest

OUR_PACKAGE = "overedit"


def stage_key(*modules: ModuleType, **inputs: Any) -> str:
    """A key over inputs (JSON-able) and the code of modules and all of ours that they import.

    Args:
        modules: Modules of this project, e.g. `overedit.editing.methods.ultraedit`.
        inputs: What the result depends on.

    Raises:
        ValueError: A module is not one of this project's, or has no source file: its code cannot be in the key.
    """
    return digest({"inputs": inputs, "code": {name: source.digest for name, source in _closure(modules).items()}})


class _Source(NamedTuple):
    """What counts of a module's source file."""

    digest: str
    """Of its syntax tree, without docstrings."""
    imports: tuple[str, ...]
    """Modules that it imports, and names from them, which may be modules too."""


def _closure(modules: Sequence[ModuleType]) -> dict[str, _Source]:
    found: dict[str, _Source] = {}
    waiting = [module.__name__ for module in modules]
    for name in waiting:
        if _file_of(name) is None:
            raise ValueError(f"stage_key: {name} has no source file in the package {OUR_PACKAGE}")
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = _file_of(name)
        if path is not None:
            found[name] = _read(path)
            waiting += found[name].imports
    return dict(sorted(found.items()))


def _file_of(name: str) -> Path | None:
    """The file of one of our modules; None for everything else."""
    if name.split(".")[0] != OUR_PACKAGE:
        return None
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # a name imported from a module, not a module
        return None
    return Path(spec.origin) if spec and spec.origin else None


def _read(path: Path) -> _Source:
    tree = ast.parse(path.read_text())
    imports: list[str] = []
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [part for part in body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
            node.body = kept  # type: ignore[attr-defined]
        if isinstance(node, ast.ImportFrom) and node.module:
            imports += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
    return _Source(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(imports))
