"""One server with its deployments and a worker, for all tests of operation that do not kill theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.operation import Operation, Webhook


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    with Webhook() as listening:
        yield listening


@pytest.fixture(scope="module")
def operation(tiny_model: Path, webhook: Webhook, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operation]:
    """What an operator starts: `overedit ui`, `overedit deploy --webhook URL`, `overedit worker`."""
    with Operation(tmp_path_factory.mktemp("operation"), tiny_model) as operated:
        done = operated.overedit("deploy", "--webhook", webhook.url)
        assert done.returncode == 0, done.stdout + done.stderr
        operated.start_worker()
        yield operated
