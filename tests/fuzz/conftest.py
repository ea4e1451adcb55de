"""How many inputs are tried, and what became of them."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.fuzzing import Outcome

INPUTS = int(os.environ.get("OVEREDIT_FUZZ_INPUTS", "60"))  # of each test; `make fuzz` sets it
OUTCOMES = pytest.StashKey[Counter[str]]()
SECONDS = pytest.StashKey[list[float]]()
LONGEST_MESSAGE = 6_000  # characters

settings.register_profile(
    "overedit",
    max_examples=INPUTS,
    deadline=None,
    derandomize=INPUTS < 1000,  # the same few in every `make test`, others in every `make fuzz`
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("overedit")


@pytest.fixture
def outcome(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outcome]:
    """Call something with a hostile input: it gives a result, or one clear error that holds some words.

    Whatever happens, no file is left behind beside the test's own.
    """
    counts = request.config.stash.setdefault(OUTCOMES, Counter())
    begun = time.perf_counter()

    def tried(read: Callable[[], Any], words: str) -> Any:
        before = sorted(tmp_path.rglob("*"))
        try:
            result = read()
        except ValueError as error:
            assert type(error).__module__ in ("builtins", "overedit.editing.trajectory.checkpoint"), repr(error)
            assert type(error).__name__ in ("ValueError", "DamagedCheckpointError"), repr(error)
            assert words in str(error), str(error)
            assert len(str(error)) <= LONGEST_MESSAGE, len(str(error))
            counts["refused"] += 1
            result = None
        else:
            counts["accepted"] += 1
        assert sorted(tmp_path.rglob("*")) == before
        return result

    yield tried
    request.config.stash.setdefault(SECONDS, []).append(time.perf_counter() - begun)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    counts, seconds = config.stash.get(OUTCOMES, Counter()), sum(config.stash.get(SECONDS, []))
    if counts:
        told = ", ".join(f"{number:,} {what}" for what, number in sorted(counts.items()))
        total = counts.total()
        terminalreporter.write_line(f"fuzz: {total:,} inputs ({told}), {total / max(seconds, 1e-9):,.0f} a second")
