"""The container files follow their rules: locked versions, an unprivileged user, loopback ports, no passwords."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from typing import Any

import pytest
import yaml

from tests.support.paths import REPOSITORY
from tests.support.shown_commands import mistake

DEPLOYMENTS = REPOSITORY / "deployments"
CONTAINERFILE = (DEPLOYMENTS / "Containerfile").read_text()
COMPOSE = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("overedit:")}


def stages() -> dict[str, list[str]]:
    """Stage -> its instructions, with those of the stages that it starts from."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in re.sub(r"^\s*#.*\n", "", CONTAINERFILE, flags=re.MULTILINE).replace("\\\n", " ").splitlines():
        if start := re.match(r"FROM (\S+) AS (\S+)", line):
            current = found[start[2]] = list(found.get(start[1], []))
        elif line:
            current.append(line)
    return found


def test_images_are_installed_from_the_locks() -> None:
    for target in ("cpu", "cuda"):
        assert f"RUN bash deployments/environment.sh {target} packages" in stages()[f"build-{target}"]
        assert (DEPLOYMENTS / "locks" / f"{target}.txt").is_file()
    assert "pip install" not in CONTAINERFILE


def test_images_run_as_an_unprivileged_user_and_check_their_health() -> None:
    for target in ("cpu", "cuda"):
        words = [line.split(maxsplit=1) for line in stages()[target]]
        users = [value for word, value in words if word == "USER"]
        assert users[-1] == "10001:10001"
        assert "HEALTHCHECK" in dict(words)
        assert "/var/lib/overedit" in dict(words)["VOLUME"]


def test_the_context_holds_the_package_and_no_secret() -> None:
    lines = [line for line in (DEPLOYMENTS / "Containerfile.dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert lines[0] == "*", "what is not named stays out"
    taken = {line[1:] for line in lines if line.startswith("!")}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    folders = project["tool"]["setuptools"]["package-dir"].values()
    needed = {folder.split("/")[0] for folder in folders} | {"pyproject.toml", project["project"]["readme"]}
    assert taken >= needed | set(project["project"]["license-files"])
    assert "deployments/.env" in lines and not any(fnmatch(".git", name) for name in taken)


def test_there_is_no_password_in_the_compose_file() -> None:
    """Without a password compose refuses to start: `${NAME:?why}`."""
    secret = re.compile(r"PASSWORD|AUTH")
    found = {
        f"{name}.{key}": value
        for name, service in SERVICES.items()
        for key, value in service.get("environment", {}).items()
        if secret.search(key)
    }
    assert len(found) >= 4
    assert [key for key, value in found.items() if not re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value)] == []


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports and all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)
    assert COMPOSE["networks"]["database"]["internal"] and SERVICES["postgres"]["networks"] == ["database"]
    assert not any(service.get("privileged") or "network_mode" in service for service in SERVICES.values())


def test_services_are_watched_and_started_again() -> None:
    once = {"deploy"}
    assert all(service["healthcheck"]["test"] for name, service in SERVICES.items() if name not in once)
    assert all(service["restart"] == ("no" if name in once else "unless-stopped") for name, service in SERVICES.items())
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert waits["server"] == {"postgres": {"condition": "service_healthy"}}
    assert waits["deploy"] == {"server": {"condition": "service_healthy"}}
    assert waits["worker"] == waits["worker-cuda"] == {"deploy": {"condition": "service_completed_successfully"}}


def test_what_must_last_is_in_named_volumes() -> None:
    mounts = [mount.split(":") for service in SERVICES.values() for mount in service.get("volumes", [])]
    assert {source for source, *_ in mounts} == set(COMPOSE["volumes"])
    assert {target for source, target, *_ in mounts if source == "home"} == {"/var/lib/overedit"}


def test_images_are_built_from_targets_that_exist() -> None:
    for service in OURS.values():
        assert service["image"] == f"overedit:{service['build']['target']}"
        assert service["build"]["target"] in stages()
        assert (DEPLOYMENTS / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert service["cap_drop"] == ["ALL"]
        if "entrypoint" not in service:
            assert mistake(service["command"]) is None


@pytest.mark.parametrize(
    "command",
    [
        ("hadolint", "deployments/Containerfile"),
        ("dclint", "deployments/compose.yaml"),
    ],
    ids=lambda command: command[0],
)
def test_linters_accept_the_files(command: tuple[str, ...]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
