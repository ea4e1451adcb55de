"""The source code is parsed once in a test session: it does not change while its tests run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from overedit.tasks.system.stage_key import SourceIndex


def read_code_once() -> None:
    """Let all indices of the installed folders share what they have parsed, for the rest of this process."""
    first, plain = SourceIndex(), SourceIndex.__init__

    def shared(self: SourceIndex, folders: Mapping[str, Path] | None = None) -> None:
        plain(self, folders)
        if folders is None:
            self._sources = first._sources

    SourceIndex.__init__ = shared  # type: ignore[method-assign]
