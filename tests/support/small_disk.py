"""A real file system that is soon full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overedit.editing.storage import disk_space


@contextmanager
def small_disk(folder: Path, monkeypatch: pytest.MonkeyPatch, *, megabytes: int) -> Iterator[Path]:
    """Mount one at a new folder, with no slack asked for; the test is skipped where nothing may be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    monkeypatch.setattr(disk_space, "SLACK", 0)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
