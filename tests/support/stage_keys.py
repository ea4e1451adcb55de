"""Keys of stages without reading the code for each of them: a second, some twenty times a run."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import overedit.tasks.system.stage_key
from tests.support.paths import REPOSITORY


def read_code_once() -> None:
    """Read each file of the repository once in this process, for good; files elsewhere are read every time."""
    read = overedit.tasks.system.stage_key._read
    read_once = cache(read)
    ours = {REPOSITORY / room for room in ("editing", "tasks", "flows", "overedit")}

    def read_or_remember(path: Path) -> overedit.tasks.system.stage_key._Source:
        return (read_once if ours & set(path.resolve().parents) else read)(path)

    overedit.tasks.system.stage_key._read = read_or_remember
