"""The documentation points to what is there."""

from __future__ import annotations

import re
from pathlib import Path


def test_links_to_lines_are_right(repository: Path) -> None:
    """A link [`text`](file#Lnn) names a line that holds the text."""
    pages = [repository / "README.md", *(repository / "docs").glob("*.md")]
    links = [
        (page, *found) for page in pages for found in re.findall(r"\[`([^`]+)`\]\(([^)#]+)#L(\d+)\)", page.read_text())
    ]
    assert len(links) > 5
    for page, text, target, line in links:
        lines = (page.parent / target).read_text().splitlines()
        near = next((n for n, row in enumerate(lines, 1) if text in row), None)
        assert text in lines[int(line) - 1], f"{page.name}: {text!r} is not in line {line} of {target}, but in {near}"


def test_links_to_files_are_right(repository: Path) -> None:
    for page in (repository / "README.md", *(repository / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: there is no {target}"
