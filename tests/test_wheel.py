"""The wheel: one import name, with all its files, beside packages of the user's that are called tasks and flows."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from tests.support.paths import REPOSITORY

IN_THE_WHEEL = ("pyproject.toml", "README.md", "LICENSE", "overedit", "editing", "tasks", "flows", "deployments")
API = """
import flows, tasks, overedit, sys
assert flows.WHOSE == tasks.WHOSE == "the user's"
from overedit.tasks.pocket_world.model import model_folder
from overedit.flows.config.loading import named_content
assert (model_folder() / "model.safetensors").is_file()
assert named_content("demo")[0]["name"] == "demo"
assert "memit" in [method.name for method in overedit.methods()]
assert "zsre" in [dataset.name for dataset in overedit.datasets()]
print(overedit.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in IN_THE_WHEEL:
        path = REPOSITORY / name
        unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=unwanted)
        else:
            shutil.copy(path, source)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (found,) = out.glob("*.whl")
    return found


def shipped(folder: str) -> set[str]:
    """The files of a folder at the top level, as git or a plain copy has them."""
    return {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_it_installs_overedit_alone_and_every_file_of_it(wheel: Path) -> None:
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == {"overedit"}
    expected = {f"overedit/{name}" for folder in ("editing", "tasks", "flows") for name in shipped(folder)}
    expected |= {f"overedit/benchmarks/{Path(name).name}" for name in shipped("deployments/benchmarks")}
    expected |= {f"overedit/deployments/{name}" for name in ("__init__.py", "automations.yaml", "prefect.yaml")}
    assert names == expected | {"overedit/__init__.py", "overedit/py.typed"}


def test_every_package_is_named_in_the_project_file() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    folders = {path.parent for top in ("editing", "tasks", "flows") for path in (REPOSITORY / top).rglob("*.py")}
    rooms = {".".join(("overedit", *folder.relative_to(REPOSITORY).parts)) for folder in folders}
    assert set(project["tool"]["setuptools"]["packages"]) == rooms | {
        "overedit",
        "overedit.benchmarks",
        "overedit.deployments",
    }


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new environment with the wheel and the locked packages, and without this checkout.

    The packages are those of this environment, read from where they are: installing 3.5 GB anew would prove no more.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    ZipFile(wheel).extractall(packages)
    (locked,) = {path for path in map(Path, sys.path) if path.name == "site-packages" and (path / "torch").is_dir()}
    (packages / "locked.pth").write_text(f"{locked}\n")  # its own .pth files, the editable checkout, are not followed
    command = folder / "bin" / "overedit"
    start = "from overedit.flows.cli.main import main\nif __name__ == '__main__':\n    main()\n"
    command.write_text(f"#!{folder}/bin/python\n{start}")
    command.chmod(0o755)
    return folder / "bin"


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """A Prefect repository of somebody else's."""
    for name in ("tasks", "flows"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text('WHOSE = "the user\'s"\n')
    return tmp_path


@pytest.mark.parametrize("arguments", [("demo", "--help"), ("methods",), ("datasets",), ("run", "--help")])
def test_the_command_line_runs_from_another_folder(
    installed: Path, users_folder: Path, arguments: tuple[str, ...]
) -> None:
    done = subprocess.run([installed / "overedit", *arguments], cwd=users_folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "UltraEdit" in done.stdout or "pocket" in done.stdout or "Usage" in done.stdout


def test_the_api_works_beside_packages_of_the_same_names(installed: Path, users_folder: Path) -> None:
    done = subprocess.run([installed / "python", "-c", API], cwd=users_folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed.parent)


@pytest.mark.slow
def test_a_run_works_from_the_wheel(installed: Path, users_folder: Path, tiny_model: Path) -> None:
    """The whole way, vLLM's process excepted."""
    from tests.support.benchmark_run import configuration

    content = configuration(users_folder, tiny_model, edit_counts=[1])
    content["methods"] = content["methods"][:1]
    (users_folder / "c.yaml").write_text(yaml.safe_dump(content))
    done = subprocess.run([installed / "overedit", "run", "c.yaml"], cwd=users_folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "report: " in done.stdout
