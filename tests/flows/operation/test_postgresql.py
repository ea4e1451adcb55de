"""A schedule fires with Prefect's server on PostgreSQL (Debian's `postgresql`, in a cluster of the test's own)."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.operation import Operation, free_port

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("OVEREDIT_OPERATION" not in os.environ, reason="takes minutes: make operation"),
    pytest.mark.skipif(not BINARIES, reason="no PostgreSQL here: apt-get install postgresql"),
]


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of an empty database of a cluster that is removed afterwards; PostgreSQL refuses to run as root."""
    with TemporaryDirectory(prefix="postgresql-") as name:
        yield from started(Path(name))


def started(folder: Path) -> Iterator[str]:
    port = free_port()
    as_owner: list[str] = []
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        as_owner = ["runuser", "-u", "postgres", "--"]
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    password = folder / "password"
    password.write_text("prefect\n")
    password.chmod(0o644)
    data, binaries = folder / "data", BINARIES[-1]

    def call(*command: str | Path) -> None:
        done = subprocess.run([*as_owner, *map(str, command)], capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr

    options = ("-A", "scram-sha-256", "-U", "prefect", f"--pwfile={password}", "-E", "UTF8", "--locale=C.UTF-8")
    call(binaries / "initdb", "-D", data, *options)
    with (data / "postgresql.conf").open("a") as configuration:
        configuration.write(f"listen_addresses='127.0.0.1'\nport={port}\nunix_socket_directories=''\nfsync=off\n")
    call(binaries / "pg_ctl", "-D", data, "-l", folder / "log", "-w", "start")
    address = f"prefect:prefect@127.0.0.1:{port}"
    call(binaries / "psql", f"postgresql://{address}/postgres", "-c", "CREATE DATABASE prefect")
    yield f"postgresql+asyncpg://{address}/prefect"
    call(binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop")


def test_a_schedule_fires_on_postgresql(database: str, tiny_model: Path, tmp_path: Path) -> None:
    settings = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database}
    with Operation(tmp_path, tiny_model, settings) as operation:
        done = operation.overedit("deploy")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "there is no notification block overedit-alerts" in done.stdout
        operation.start_worker()
        due = operation.scheduled("benchmark/benchmark", config="c.yaml", name="due", edit_counts=[1], limit=1)
        assert operation.ended(due["id"])["state_type"] == "COMPLETED"
        assert not (tmp_path / "prefect" / "prefect.db").exists(), "nothing is in SQLite"
