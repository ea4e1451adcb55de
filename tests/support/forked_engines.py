"""Engines in processes of their own that are forked from a warm one, for tests that start several."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.warm_process import ForkedProcess, WarmProcess

SERVER = "from overedit.tasks.engine.server import main; main()"


def fork_engines(warm: WarmProcess, patch: pytest.MonkeyPatch) -> None:
    """From now on, a client's server is forked from a process that has imported what it needs."""

    def fork(command: Sequence[str], *, pass_fds: Sequence[int], env: dict[str, str], **_: Any) -> ForkedProcess:
        assert SERVER in command
        return warm.run(SERVER, environment=env, descriptors=pass_fds)

    names = {"Popen": fork, "DEVNULL": subprocess.DEVNULL, "TimeoutExpired": subprocess.TimeoutExpired}
    patch.setattr("overedit.tasks.engine.client.subprocess", SimpleNamespace(**names))
