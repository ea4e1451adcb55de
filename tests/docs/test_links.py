"""Links in the documentation lead to files and symbols that exist."""

from __future__ import annotations

import re
from pathlib import Path


def pages(repository: Path) -> list[Path]:
    top = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
    return [*(repository / name for name in top), *sorted((repository / "docs").glob("*.md"))]


def test_links_to_symbols_are_right(repository: Path) -> None:
    """A link [`text`](file) to a source file names something that the file contains."""
    links = [
        (page, *found)
        for page in pages(repository)
        for found in re.findall(r"\[`([^`]+)`\]\(([^)#\s]+\.(?:py|sql))\)", page.read_text())
        if not found[1].endswith(found[0]) and Path(found[1]).stem != found[0]
    ]
    assert len(links) > 5
    for page, text, target in links:
        assert text in (page.parent / target).read_text(), f"{page.name}: {text!r} is not in {target}"


def test_links_to_files_are_right(repository: Path) -> None:
    for page in pages(repository):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: there is no {target}"


def test_every_page_can_be_reached_from_the_readme(repository: Path) -> None:
    linked = re.findall(r"\]\((docs/[^)#]+\.md)\)", (repository / "README.md").read_text())
    assert {repository / name for name in linked} == set((repository / "docs").glob("*.md"))
