"""The bench of the views' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.view_bench import Bench, at


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A warehouse with one trajectory, `fast`, labelled Fast, which was planned to 100 edits."""
    bench = Bench(tmp_path)
    bench.put("runs", [at(100) | {"label": "Fast", "status": "completed"}])
    return bench
