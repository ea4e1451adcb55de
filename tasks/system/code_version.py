"""The version of the code that runs: the git commit of its checkout, or what an image was built from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import overedit

COMMIT_VARIABLE = "OVEREDIT_COMMIT"
"""The environment variable that holds the commit where there is no checkout, e.g. in a container image."""


def code_version() -> tuple[str | None, bool | None]:
    """The commit of the code, and whether its files differ from that; (None, None) if it is not known.

    The code is a checkout only where git tracks it: an installed package inside somebody else's repository is none.
    """
    folder = Path(overedit.__path__[0])
    try:
        if not _git(folder, "ls-files", "__init__.py"):
            return os.environ.get(COMMIT_VARIABLE) or None, None
        return _git(folder, "rev-parse", "HEAD"), bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return os.environ.get(COMMIT_VARIABLE) or None, None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
