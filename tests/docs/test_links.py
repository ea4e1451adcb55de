"""The documentation points to what is there."""

from __future__ import annotations

import re
from pathlib import Path


def test_links_to_symbols_are_right(repository: Path) -> None:
    """A link [`text`](file) to a source file names something that the file holds."""
    pages = [repository / "README.md", *(repository / "docs").glob("*.md")]
    links = [
        (page, *found)
        for page in pages
        for found in re.findall(r"\[`([^`]+)`\]\(([^)#\s]+\.(?:py|sql))\)", page.read_text())
        if not found[1].endswith(found[0]) and Path(found[1]).stem != found[0]
    ]
    assert len(links) > 5
    for page, text, target in links:
        assert text in (page.parent / target).read_text(), f"{page.name}: {text!r} is not in {target}"


def test_links_to_files_are_right(repository: Path) -> None:
    for page in (repository / "README.md", *(repository / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: there is no {target}"
