"""What every test may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import REPOSITORY


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
    """Prefect's real server, one for all tests."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
