"""What every test may use."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import Run, write_configuration
from tests.support.lm_eval_index import read_own_tasks_once
from tests.support.paths import REPOSITORY
from tests.support.stage_keys import read_code_once
from tests.support.warm_process import WarmProcess


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the long tests unless they are asked for."""
    if "OVEREDIT_LONG" not in os.environ:
        for item in items:
            if item.get_closest_marker("long") is not None:
                item.add_marker(pytest.mark.skip(reason="half a minute or more: make long"))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """One torch thread: tiny models gain nothing from a second, and lose much where another process holds a core."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def empty_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder of the session's own: the developer's is neither read nor written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVEREDIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def code_read_once() -> None:
    """The code does not change while its tests run."""
    read_code_once()


@pytest.fixture(scope="session", autouse=True)
def thawed_at_the_end() -> Iterator[None]:
    """Or what was imported is reported as leaked."""
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def frozen_heap() -> None:
    """What is there already, the imported packages above all, is not looked through by each garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def own_tasks_read_once() -> None:
    """lm-eval's own 14,000 tasks are looked through once, not by each test that wants all of them."""
    read_own_tasks_once()


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def golden() -> Path:
    """Numbers of published implementations, with the models that they were made on; its README says what is what."""
    return REPOSITORY / "tests" / "golden"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data that some developers have beside the project."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("the developers' shared data is not beside the repository")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random two-layer Llama with a word tokenizer, context 128."""
    from tests.support.tiny_llama import write_tiny_llama

    folder = tmp_path_factory.mktemp("tiny-model")
    write_tiny_llama(folder)
    return folder


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """Prefect's real server, one for all tests that do not kill theirs."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def warm_process() -> Iterator[WarmProcess]:
    """Forks processes for runs with the transformers engine."""
    with WarmProcess(["tests.support.warm_flows"]) as process:
        yield process


@pytest.fixture
def overedit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Call the command line in an empty folder; gives (exit code, standard output, standard error)."""
    from overedit.flows.cli.main import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["overedit", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def files(tmp_path: Path, tiny_model: Path) -> dict[str, str]:
    """A configuration that is right, and its data."""
    return write_configuration(tmp_path, tiny_model)
