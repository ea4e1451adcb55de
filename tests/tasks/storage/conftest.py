"""A home in the memory of this process, which has the interface of an object store."""

from __future__ import annotations

from pathlib import Path

import pytest

from overedit.tasks.storage.working_copy import local_home


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Its working copy, which is empty."""
    monkeypatch.setenv("OVEREDIT_CACHE", str(tmp_path / "cache"))
    return local_home(f"memory://{tmp_path.name}/results")
