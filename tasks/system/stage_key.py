"""What a stage's result depends on, as one short key: its inputs, and the code and packages that compute it.

A stage whose key is in its result's file is not run again. The code counts as the syntax trees of the modules used,
without docstrings: a comment changes nothing, a changed line in `editing/` recomputes the results of its users, and
the results of methods that do not use that line stay. Of the installed packages those count that can change a number
(`packages.py`) and that the code imports.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import overedit
from overedit.editing.storage.checksums import digest
from overedit.tasks.system.packages import PACKAGES, versions

FOLDERS = ("editing", "tasks", "flows")


class _Source(NamedTuple):
    digest: str
    """Of the syntax tree without docstrings."""
    imports: tuple[str, ...]
    """Dotted names of this project that may be modules."""
    packages: tuple[str, ...]
    """The import names of PACKAGES that it imports."""


class SourceIndex:
    """The source files of this project, each read and parsed once; whoever computes many keys keeps one.

    Args:
        folders: Import name -> folder, e.g. `overedit.editing` -> `editing/`; the installed ones by default.
    """

    def __init__(self, folders: Mapping[str, Path] | None = None) -> None:
        self._folders = _installed_folders() if folders is None else folders
        self._sources: dict[str, _Source | None] = {}

    def key(self, *modules: ModuleType, **inputs: Any) -> str:
        """A key over inputs (JSON-able), the code of modules and all of ours that they import, and their packages.

        Args:
            modules: Modules of this project, e.g. `overedit.editing.methods.ultraedit`.
            inputs: What the result depends on.

        Raises:
            ValueError: A module is not one of this project's, or has no source file: its code cannot be in the key.
        """
        code = self._code([module.__name__ for module in modules])
        return digest({"inputs": inputs, "code": code, "packages": versions(self._packages(code))})

    def imported_by(self, module: ModuleType) -> set[str]:
        """The names of this project's modules that a module is made of, itself included; raises as `key` does."""
        return set(self._code([module.__name__]))

    def _code(self, names: Sequence[str]) -> dict[str, str]:
        """Module -> digest of its code, of these modules and all that they import."""
        for name in names:
            if self._source(name) is None:
                raise ValueError(f"stage key: {name} has no source file in {', '.join(self._folders)}")
        found: dict[str, str] = {}
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            source = self._source(name)
            if source is not None and name not in found:
                found[name] = source.digest
                waiting += source.imports
        return dict(sorted(found.items()))

    def _packages(self, names: Iterable[str]) -> set[str]:
        """The packages that can change a number and that modules import."""
        sources = (self._source(name) for name in names)
        imported = {name for source in sources if source is not None for name in source.packages}
        return {package for name in imported for package in PACKAGES[name]}

    def _source(self, name: str) -> _Source | None:
        """The source of one of our modules; None for a name that is not a module."""
        if name not in self._sources:
            path = self._path(name)
            self._sources[name] = None if path is None else _parsed(path.read_text())
        return self._sources[name]

    def _path(self, name: str) -> Path | None:
        for package, folder in self._folders.items():
            if name == package or name.startswith(f"{package}."):
                inside = folder.joinpath(*name[len(package) :].split(".")[1:])
                candidates = (inside.with_suffix(".py"), inside / "__init__.py")
                return next((path for path in candidates if path.is_file()), None)
        return None


def stage_key(*modules: ModuleType, **inputs: Any) -> str:
    """The key of a single stage; see `SourceIndex.key`."""
    return SourceIndex().key(*modules, **inputs)


def _installed_folders() -> dict[str, Path]:
    """The folders are installed beside each other in the package, or linked to it where they are (`pyproject.toml`)."""
    home = Path(overedit.__path__[0])
    parents = (home, home.parent)
    return {
        f"overedit.{name}": next(parent / name for parent in parents if (parent / name).is_dir()) for name in FOLDERS
    }


def _parsed(text: str) -> _Source:
    tree = ast.parse(text)
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            imports += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            imports += [alias.name for alias in node.names]
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [part for part in body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
            node.body = kept  # type: ignore[attr-defined]
    ours = tuple(name for name in dict.fromkeys(imports) if name.startswith("overedit."))
    packages = {name.partition(".")[0] for name in imports} & PACKAGES.keys()
    return _Source(hashlib.sha256(ast.dump(tree).encode()).hexdigest(), ours, tuple(sorted(packages)))
