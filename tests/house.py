"""Measures the structure of the code: rooms, import cycles, the import law, cohesion. `python tests/house.py [FOLDER]`.

A room is a folder directly below `editing/` or `tasks/`, with all below it, or a module directly there; `flows/` is
one room. An import is counted once for each pair of files. Imports inside functions count like any other.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

FOLDERS = ("editing", "tasks", "flows")
SMALL = 40
"""Lines below which a file counts as small, unless it is a method or an `__init__`."""

LAW: dict[str, set[str]] = {
    # editing: the paper
    "editing.requests": set(),
    "editing.metrics": set(),
    "editing.storage": set(),
    "editing.model": {"editing.requests"},
    "editing.model.partial_forward": {"editing.model", "editing.requests"},
    "editing.restraints": {"editing.model"},
    "editing.merging": {"editing.restraints"},
    "editing.shards": {"editing.merging", "editing.model"},
    "editing.methods.base": {"editing.model", "editing.restraints", "editing.shards"},
    "editing.methods.fine_tuning": {"editing.methods.base", "editing.model", "editing.requests"},
    "editing.methods.gradients": {"editing.methods.base", "editing.model", "editing.requests"},
    "editing.methods.locate_then_edit": {
        "editing.methods.base",
        "editing.methods.gradients",
        "editing.model",
        "editing.requests",
    },
    "editing.methods.routing": {
        "editing.methods.base",
        "editing.methods.locate_then_edit",
        "editing.model",
        "editing.requests",
    },
    "editing.methods": {
        "editing.methods",
        "editing.model",
        "editing.requests",
        "editing.restraints",
        "editing.shards",
    },
    "editing.durability": {"editing.model"},
    "editing.trajectory": {
        "editing.methods.base",
        "editing.model",
        "editing.requests",
        "editing.restraints",
        "editing.storage",
    },
    # tasks: the laboratory; each room may import all of editing
    "tasks.system": set(),
    "tasks.pocket_world": set(),
    "tasks.storage": {"tasks.system"},
    "tasks.warehouse": {"tasks.storage", "tasks.system"},
    "tasks.models": {"tasks.system", "tasks.pocket_world"},
    "tasks.data": {"tasks.system", "tasks.pocket_world"},
    "tasks.runs": {"tasks.storage", "tasks.warehouse", "tasks.system"},
    "tasks.engine": {"tasks.models", "tasks.system"},
    "tasks.editing_job": {
        "tasks.data",
        "tasks.models",
        "tasks.runs",
        "tasks.storage",
        "tasks.warehouse",
        "tasks.system",
    },
    "tasks.durability": {"tasks.data", "tasks.models", "tasks.pocket_world", "tasks.storage", "tasks.system"},
    "tasks.search": {"tasks.runs", "tasks.warehouse", "tasks.system"},
    "tasks.report": {"tasks.storage", "tasks.warehouse", "tasks.runs", "tasks.system"},
    "tasks.report.comparison": {"tasks.report.formatting", "tasks.warehouse", "tasks.runs", "tasks.system"},
    "tasks.export": {"tasks.storage", "tasks.warehouse", "tasks.runs", "tasks.system"},
    "tasks.site": {"tasks.report.web_page", "tasks.warehouse", "tasks.runs", "tasks.system"},
    "tasks.execution": {
        "tasks.editing_job",
        "tasks.durability",
        "tasks.engine",
        "tasks.evaluation",
        "tasks.data",
        "tasks.models",
        "tasks.runs",
        "tasks.warehouse",
        "tasks.system",
    },
    "tasks.pocket_model": {"tasks.engine", "tasks.models", "tasks.pocket_world", "tasks.system"},
    "tasks.scan": {
        "tasks.editing_job",
        "tasks.engine",
        "tasks.data",
        "tasks.models",
        "tasks.runs",
        "tasks.storage",
        "tasks.warehouse",
        "tasks.system",
    },
    "tasks.locate": {
        "tasks.editing_job",
        "tasks.engine",
        "tasks.evaluation",
        "tasks.data",
        "tasks.models",
        "tasks.report.web_page",
        "tasks.runs",
        "tasks.storage",
        "tasks.warehouse",
        "tasks.system",
    },
    "tasks.evaluation.capability": {
        "tasks.engine",
        "tasks.data",
        "tasks.warehouse",
        "tasks.pocket_world",
        "tasks.system",
    },
    "tasks.evaluation": {
        "tasks.evaluation.capability",
        "tasks.engine",
        "tasks.data",
        "tasks.models",
        "tasks.runs",
        "tasks.storage",
        "tasks.warehouse",
        "tasks.system",
    },
    "tasks.planning": {
        "tasks.engine",
        "tasks.evaluation",
        "tasks.runs",
        "tasks.search",
        "tasks.warehouse",
        "tasks.system",
    },
    "tasks.tune": {
        "tasks.evaluation",
        "tasks.editing_job",
        "tasks.engine",
        "tasks.data",
        "tasks.models",
        "tasks.runs",
        "tasks.storage",
        "tasks.warehouse",
        "tasks.system",
    },
    # flows: the protocol; each may import all of tasks and editing. No flow imports a flow, except `deployed`, which
    # gives two of them the parameters of a form.
    "flows.config": set(),
    "flows.plan": {"flows.config"},
    "flows.forecast": {"flows.plan", "flows.config"},
    "flows.fitting": {"flows.forecast", "flows.config"},
    "flows.trajectories": {"flows.plan", "flows.config"},
    "flows.durability": {"flows.trajectories", "flows.plan", "flows.config"},
    "flows.many_devices": {"flows.durability", "flows.trajectories", "flows.plan", "flows.config"},
    "flows.benchmark": {
        "flows.many_devices",
        "flows.durability",
        "flows.plan",
        "flows.trajectories",
        "flows.config",
        "flows.launch",
    },
    "flows.scan": {"flows.plan", "flows.config", "flows.launch"},
    "flows.tune": {"flows.plan", "flows.config", "flows.launch"},
    "flows.locate": {"flows.plan", "flows.config", "flows.launch"},
    "flows.edit": {"flows.plan", "flows.config"},
    "flows.pocket_world": set(),
    "flows.end_state": {"flows.benchmark", "flows.plan"},
    "flows.deployed": {"flows.end_state", "flows.scan", "flows.plan", "flows.config", "flows.launch"},
    "flows.deploy": {"flows.launch"},
    "flows.server_log": set(),
    "flows.launch": set(),
    "flows.cli": {"flows"},
}
"""Room, or part of a room -> what it may import of its own top folder besides itself; a name includes all below it.
`tasks` may import `editing`, `flows` may import both, and no folder one to its right."""


class House:
    """The imports between the source files of a checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        paths = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]
        self.lines = {_name(path.relative_to(root)): len(path.read_text().splitlines()) for path in paths}
        """Module -> its lines, by its name below the root (`tasks.engine.client`)."""
        self._paths = {_name(path.relative_to(root)): path for path in paths}
        self.packages = {name for name, path in self._paths.items() if path.name == "__init__.py"}
        self.imports = {name: set(self._imported(path)) - {name} for name, path in self._paths.items()}
        """Module -> the modules that it imports."""

    def _imported(self, path: Path) -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                module = node.module.removeprefix("overedit.")
                for alias in node.names:
                    inside = f"{module}.{alias.name}"
                    yield from (name for name in (inside if inside in self._paths else module,) if name in self._paths)
            elif isinstance(node, ast.Import):
                names = (alias.name.removeprefix("overedit.") for alias in node.names)
                yield from (name for name in names if name in self._paths)

    def room(self, module: str) -> str:
        """The room of a module: its folder below `editing/` or `tasks/`, or itself; `flows/` is one room."""
        parts = module.split(".")
        return "flows" if parts[0] == "flows" else ".".join(parts[:2])

    @cached_property
    def rooms(self) -> dict[str, list[str]]:
        """Room -> its files, without `__init__`."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.lines:
            if name not in self.packages:
                found[self.room(name)].append(name)
        return dict(found)

    @cached_property
    def pairs(self) -> set[tuple[str, str]]:
        """(importing file, imported file)."""
        return {(one, other) for one, others in self.imports.items() for other in others}

    @property
    def share_in_room(self) -> float:
        """Share of the imports that stay in their room."""
        return sum(self.room(one) == self.room(other) for one, other in self.pairs) / len(self.pairs)

    @property
    def against_the_law(self) -> list[str]:
        """Imports that the table does not allow; modules that it does not cover."""
        modules = [name for name in self.lines if name not in self.packages]
        found = [f"{name} is not in the table" for name in modules if _place_in_law(name) is None]
        for one, other in sorted(self.pairs):
            here, there = one.split(".")[0], other.split(".")[0]
            if FOLDERS.index(there) > FOLDERS.index(here) or (here == there and not _allowed(one, other)):
                found.append(f"{one} imports {other}")
        return found

    @cached_property
    def circles(self) -> list[list[str]]:
        """Groups of files that import each other in a circle (strongly connected components; Tarjan 1972)."""
        index: dict[str, int] = {}
        low: dict[str, int] = {}
        stack: list[str] = []
        found: list[list[str]] = []

        def visit(name: str) -> None:
            index[name] = low[name] = len(index)
            stack.append(name)
            for other in self.imports[name]:
                if other not in index:
                    visit(other)
                    low[name] = min(low[name], low[other])
                elif other in stack:
                    low[name] = min(low[name], index[other])
            if low[name] == index[name]:
                group = stack[stack.index(name) :]
                del stack[stack.index(name) :]
                if len(group) > 1:
                    found.append(sorted(group))

        for name in self.imports:
            if name not in index:
                visit(name)
        return found

    @property
    def longest_chain(self) -> list[str]:
        """The longest chain of files of which each imports the next."""
        best: dict[str, list[str]] = {}

        def chain(name: str, above: tuple[str, ...]) -> list[str]:
            if name not in best:
                tails = [chain(other, (*above, name)) for other in self.imports[name] if other not in above]
                best[name] = [name, *max(tails, key=len, default=[])]
            return best[name]

        return max((chain(name, ()) for name in self.imports), key=len)

    @property
    def small_files(self) -> list[str]:
        """Files of fewer than `SMALL` lines that are no method and no `__init__`."""
        return [
            name
            for name, lines in self.lines.items()
            if lines < SMALL and name not in self.packages and self.room(name) != "editing.methods"
        ]

    def table(self) -> list[tuple[str, str]]:
        """The measurements, as (name, value)."""
        sizes = sorted(len(files) for files in self.rooms.values())
        directly = [name for name in self.lines if name.startswith("tasks.") and name.count(".") == 1]
        return [
            ("files", str(len(self.lines) - len(self.packages))),
            ("rooms", str(len(self.rooms))),
            ("files per room, median and most", f"{sizes[len(sizes) // 2]}, {sizes[-1]}"),
            ("circles of files", str(len(self.circles))),
            ("imports against the law", str(len(self.against_the_law))),
            ("imports between files", str(len(self.pairs))),
            ("of them inside a room", f"{self.share_in_room:.0%}"),
            ("longest import chain, files", str(len(self.longest_chain))),
            ("modules directly in tasks/", str(len([name for name in directly if name not in self.packages]))),
            (f"files under {SMALL} lines, no method, no __init__", str(len(self.small_files))),
        ]


def _place_in_law(module: str) -> str | None:
    """The most special name of the table that a module is, or is below."""
    return max((name for name in LAW if _is_below(module, name)), key=len, default=None)


def _allowed(one: str, other: str) -> bool:
    here = _place_in_law(one)
    return here is not None and (_place_in_law(other) == here or any(_is_below(other, name) for name in LAW[here]))


def _is_below(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def _name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


if __name__ == "__main__":
    house = House(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1])
    for what, number in house.table():
        print(f"{what:<50}{number:>12}")
    for title, items in (
        ("against the law", house.against_the_law),
        ("circle", house.circles),
        ("small", house.small_files),
    ):
        for item in items if "-v" in sys.argv else ():
            print(f"  {title}: {item}")
