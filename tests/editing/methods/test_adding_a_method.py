"""Adding a method costs one file and one line: shown with a toy method in a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from overedit.editing.methods import memit, ultraedit
from overedit.tasks.system.stage_key import stage_key
from tests.support.paths import REPOSITORY

TOY = '''
"""Toy: each site's weight decays a little."""

from typing import Any, Literal

from overedit.editing.methods.base import EditResult, Method, MethodConfig, silent
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.weights import Delta


class Toy(MethodConfig):
    """Settings of the toy."""

    method: Literal["toy"] = "toy"
    """The method's name."""
    sites: tuple[str, ...]
    """The sites to decay."""
    rate: float = 0.01
    """The share that goes."""


def toy(
    model: Any, tokenizer: Any, requests: Any, config: Toy, state: Any, *, seed: int = 0, progress: Any = silent
) -> EditResult:
    """Scale the weights of the sites down."""
    anatomy = Anatomy.of(model)
    names = [name for site in config.sites for name in anatomy.site_parameters(site)]
    update = {name: Delta(model.get_parameter(name).detach() * -config.rate) for name in names}
    progress(len(requests), len(requests))
    return EditResult(update, {}, {"sites": len(names)})


METHOD = Method(config=Toy, function=toy, label="Toy", paper="none, arXiv 0000.00000", presets={})
'''.lstrip()

BENCHMARK = """
import sys
from pathlib import Path
import overedit.editing
from overedit.editing.methods.registry import METHODS
from overedit.editing.requests import EditRequest
from overedit.flows.config.models import BenchmarkConfig
from overedit.flows.edit import EditConfig
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.editing_job.job import EditingJob, run_editing_job
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.system.stage_key import stage_key

model, folder = sys.argv[1:]
assert list(METHODS)[-1] == "toy", list(METHODS)
given = {"method": "toy", "sites": ["0.down_proj"]}
data = {"name": "file", "path": "requests.jsonl"}
config = BenchmarkConfig.model_validate(
    {"name": "toy", "model": model, "dataset": data, "methods": [given], "edit_counts": [1, 3]}
)
assert config.methods[0] == EditConfig.model_validate({"model": model, "method": given, "dataset": data}).method
assert config.labels == ("Toy",)
job = EditingJob(model=ModelReference(model), method=config.methods[0], edit_counts=config.edit_counts, turn_size=2)
requests = RequestStore(EditRequest(case_id=str(i), prompt=f"p{i}", target_new="t") for i in range(3))
checkpoints = run_editing_job(job, requests, Path(folder))
assert [c.record.edit_count for c in checkpoints] == [1, 3]
assert [list(c.tensors()) for c in checkpoints] == [["model.layers.0.mlp.down_proj.weight"]] * 2
print("edited with", METHODS["toy"].label, "from", overedit.editing.__path__[0])
print([stage_key(sys.modules[METHODS[name].config.__module__]) for name in ("memit", "ultraedit")])
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with one method more: a copy of its methods, and links to everything else."""
    root = tmp_path_factory.mktemp("project")
    package = root / "overedit"
    shutil.copytree(REPOSITORY / "editing", package / "editing", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "overedit" / "__init__.py", package)
    for name in ("tasks", "flows"):
        (package / name).symlink_to(REPOSITORY / name)
    for name in ("tests", "pyproject.toml"):
        (root / name).symlink_to(REPOSITORY / name)
    methods = package / "editing" / "methods"
    (methods / "toy.py").write_text(TOY)
    registry = methods / "registry.py"
    before = registry.read_text()
    registry.write_text(re.sub(r"^(NAMES = \($.*?)^\)$", r'\1    "toy",\n)', before, flags=re.DOTALL | re.MULTILINE))
    assert len(registry.read_text().splitlines()) == len(before.splitlines()) + 1, "one line"
    return root


def run(copy: Path, *arguments: str) -> str:
    """Run Python in the copy, which comes before the installed package."""
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_command_line_lists_it(copy: Path) -> None:
    program = "from overedit.flows.cli.main import main; main()"
    listed = run(copy, "-c", f"import sys; sys.argv = ['overedit', 'methods']; {program}")
    assert re.search(r"toy\W+Toy", listed)
    assert re.search(r"memit\W+MEMIT", listed)


def test_configurations_accept_it_and_an_editing_job_runs_it(copy: Path, tiny_model: Path, tmp_path: Path) -> None:
    said = run(copy, "-c", BENCHMARK, str(tiny_model), str(tmp_path / "run"))
    *_, edited, keys = said.splitlines()
    assert edited == f"edited with Toy from {copy / 'overedit' / 'editing'}"
    assert keys == str([stage_key(memit), stage_key(ultraedit)]), "the results of other methods stay valid"
    assert (tmp_path / "run" / "00000003" / "weights.safetensors").is_file()


def test_the_tests_of_every_method_cover_it(copy: Path) -> None:
    """Purity on five families, the sites, storable results, progress, half precision: without a line in the tests."""
    module = "tests/editing/methods/test_every_method.py"
    said = run(
        copy, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", module, "-k", "toy or registry or validated"
    )
    passed = re.findall(r"^PASSED \S+::(\S+)$", said, flags=re.MULTILINE)
    assert {"test_registry_rows_are_complete", "test_a_configuration_is_validated_by_its_method"} <= set(passed)
    assert sum("toy" in name for name in passed) == 10, said
