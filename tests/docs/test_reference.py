"""Everything that a user can name is documented: commands, make targets, tables, views, methods and datasets."""

from __future__ import annotations

import re
from pathlib import Path

from overedit.editing.methods.registry import METHODS
from overedit.flows.cli.main import app
from overedit.tasks.data.options import DATASETS
from overedit.tasks.warehouse.tables import TABLES
from overedit.tasks.warehouse.views import view_names


def first_cells(page: Path) -> set[str]:
    """The names in code in the first cell of each row of a page's tables."""
    rows = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split(" | ")[0])}


def test_every_command_is_documented(repository: Path) -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    documented = {cell.split()[1] for cell in first_cells(repository / "docs" / "commands.md") if "overedit " in cell}
    assert documented == names


def test_every_make_target_is_documented(repository: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (repository / "Makefile").read_text(), re.MULTILINE)
    documented = {cell.split()[1] for cell in first_cells(repository / "CONTRIBUTING.md") if cell.startswith("make ")}
    assert documented == set(targets) - {"environment"}


def test_every_table_and_view_is_documented(repository: Path) -> None:
    assert first_cells(repository / "docs" / "sql.md") == {*TABLES, *view_names()}


def test_every_method_is_documented(repository: Path) -> None:
    assert first_cells(repository / "docs" / "methods.md") == set(METHODS)


def test_every_dataset_is_documented(repository: Path) -> None:
    assert set(DATASETS) <= first_cells(repository / "docs" / "datasets.md")
