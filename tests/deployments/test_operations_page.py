"""docs/operations.md shows commands, files and settings that exist."""

from __future__ import annotations

import re

import prefect.settings
import pytest

from tests.support.paths import REPOSITORY
from tests.support.shown_commands import commands_in_blocks, mistake, overedit_calls

PAGE = (REPOSITORY / "docs" / "operations.md").read_text()
CALLS = [call for command in commands_in_blocks(PAGE) for call in overedit_calls(command)]


def test_the_page_shows_commands() -> None:
    assert {call[0] for call in CALLS} >= {"accept", "compare", "deploy", "history", "prune", "ui", "verify", "worker"}


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_a_command_of_the_page_exists_with_its_options(call: list[str]) -> None:
    assert mistake(call) is None


@pytest.mark.parametrize(
    "call", [["nothing"], ["ui", "--nothing"], ["status", "a"], ["run"], ["status", "--home"]], ids=" ".join
)
def test_a_wrong_command_would_be_found(call: list[str]) -> None:
    assert mistake(call) is not None


def test_files_of_the_page_exist() -> None:
    named = {name for name in re.findall(r"\bdeployments/[\w./-]*\w", PAGE) if not name.endswith("/.env")}
    assert len(named) > 4
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("name", ["docs/operations.md", "deployments/compose.yaml", "deployments/Containerfile"])
def test_prefects_settings_have_their_right_names(name: str) -> None:
    """Prefect ignores a variable that it does not know."""
    named = set(re.findall(r"\bPREFECT_[A-Z_]+\b", (REPOSITORY / name).read_text()))
    assert named
    assert [each for each in sorted(named) if not hasattr(prefect.settings, each)] == []
