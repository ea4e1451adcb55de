"""The cache folder: results that can be computed again, kept for later runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """The folder of one kind of cached result; it need not exist yet.

    It is in `$OVEREDIT_CACHE`, else in `$XDG_CACHE_HOME/overedit`, else in `~/.cache/overedit`.

    Args:
        kind: The subfolder's name, e.g. `covariance`.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("OVEREDIT_CACHE") or Path(base) / "overedit") / kind
