"""The walks of docs/architecture.md lead through files and functions that exist, and their counts are right."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

TITLE = re.compile(r"^### \((\w)\) .*: (\d+) files$", re.MULTILINE)
STOP = re.compile(r"^(\d+)\. \[`([^`]+)`\]\(\.\./([^)]+)\)(?: `([\w.]+)`)?", re.MULTILINE)
BESIDE = re.compile(r"^(?:On the way: )?\[`([^`]+)`\]\(\.\./([^)]+)\) `([\w.]+)`[,.]$", re.MULTILINE)


class Walk(NamedTuple):
    """A walk as the page has it."""

    count: int
    numbers: list[int]
    stops: list[tuple[str, str, str]]
    """(path shown, path linked, function entered; empty for SQL) of each file in the list, then of those beside it."""


def walks(repository: Path) -> dict[str, Walk]:
    text = (repository / "docs" / "architecture.md").read_text()
    titles = list(TITLE.finditer(text))
    ends = [title.start() for title in titles[1:]] + [len(text)]
    found = {}
    for title, end in zip(titles, ends, strict=True):
        part = text[title.end() : end]
        listed = STOP.findall(part)
        stops = [stop[1:] for stop in listed] + BESIDE.findall(part)
        found[title[1]] = Walk(int(title[2]), [int(stop[0]) for stop in listed], stops)
    return found


def test_there_are_three_walks(repository: Path) -> None:
    assert sorted(walks(repository)) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_the_count_of_a_walk_is_that_of_its_list(repository: Path, name: str) -> None:
    walk = walks(repository)[name]
    assert walk.numbers == list(range(1, walk.count + 1))
    paths = [linked for _, linked, _ in walk.stops]
    assert len(set(paths)) == len(paths), "a file counts once"
    assert len(paths) > walk.count, "what is entered beside the way is named"


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_every_file_and_function_of_a_walk_exists(repository: Path, name: str) -> None:
    for shown, linked, function in walks(repository)[name].stops:
        assert shown == linked
        path = repository / linked
        assert path.is_file(), f"there is no {linked}"
        if path.suffix == ".py":
            assert function in defined(path), f"{linked} does not define {function!r}"


def test_every_room_is_described(repository: Path) -> None:
    """Each folder of the code has a row in its table of the page, and a line in the README's tree."""
    page = (repository / "docs" / "architecture.md").read_text()
    tree = (repository / "README.md").read_text()
    found = [path.parent for top in ("editing", "tasks", "flows") for path in (repository / top).rglob("__init__.py")]
    rooms = sorted(path.relative_to(repository) for path in found if path.parent != repository)
    assert len(rooms) > 20
    for room in rooms:
        below = "/".join(room.parts[1:])
        assert f"\n| `{below}/` |" in page, room
        assert re.search(rf"^{'  ' * (len(room.parts) - 1)}{room.name}/", tree, re.MULTILINE), room


def defined(path: Path) -> set[str]:
    """Functions, classes, methods and constants of a module, methods as `Class.method`."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names
