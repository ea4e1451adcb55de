"""The systemd units start commands that exist, as an unprivileged user, and leave no process behind."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY
from tests.support.shown_commands import mistake

UNITS = sorted((REPOSITORY / "deployments" / "systemd").glob("*.service"))
EACH_UNIT = pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)


def settings(path: Path) -> dict[str, list[str]]:
    """The unit's settings: key -> its values, in order."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            found.setdefault(key, []).append(value)
    return found


def test_there_are_two() -> None:
    assert [path.stem for path in UNITS] == ["overedit-server", "overedit-worker"]


@EACH_UNIT
def test_a_unit_starts_a_command_that_exists(path: Path) -> None:
    (start,) = settings(path)["ExecStart"]
    program, *call = shlex.split(start)
    assert program == f"{settings(path)['WorkingDirectory'][0]}/.venv/bin/overedit"
    assert mistake(call) is None
    assert call[call.index("--home") + 1] == f"/var/lib/{settings(path)['StateDirectory'][0]}"


@EACH_UNIT
def test_a_unit_runs_as_a_user_starts_again_and_holds_no_secret(path: Path) -> None:
    found = settings(path)
    assert found["User"] != ["root"]
    assert found["Restart"] == ["on-failure"]
    assert found["NoNewPrivileges"] == ["true"]
    assert f"HOME=/var/lib/{found['StateDirectory'][0]}" in found["Environment"]  # ProtectHome hides the user's own
    assert found["EnvironmentFile"][0].startswith("/etc/overedit/")
    assert not any(word in path.read_text() for word in ("PASSWORD=", "AUTH_STRING=", "CONNECTION_URL=", "TOKEN="))


def test_stopping_the_worker_ends_its_flow_processes() -> None:
    found = settings(UNITS[1])
    assert found["KillMode"] == ["control-group"]  # all processes of the unit, not the worker's alone
    assert int(found["TimeoutStopSec"][0]) >= 60  # a turn may be finished


@EACH_UNIT
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_accepts_a_unit(path: Path, tmp_path: Path) -> None:
    program = settings(path)["ExecStart"][0].split()[0]
    unit = tmp_path / path.name
    unit.write_text(path.read_text().replace(program, sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    own = [line for line in done.stderr.splitlines() if path.name in line or "Unknown" in line]
    assert own == []
