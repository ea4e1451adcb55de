"""The SQL examples in the documentation run, and the output below them has the right columns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.examples import COLUMNS, examples, output_of, with_outputs
from tests.support.synthetic_run import fill


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    fill(folder / "warehouse")
    return folder


def pages(repository: Path) -> list[Path]:
    return [repository / "README.md", *sorted((repository / "docs").glob("*.md"))]


def test_every_example_runs_and_its_columns_are_shown(repository: Path, home: Path) -> None:
    """On a run other than the page's: the columns are the same, the numbers are not."""
    found = [(page.name, *example) for page in pages(repository) for example in examples(page)]
    assert [page for page, _, _ in found].count("README.md") >= 1
    assert [page for page, _, _ in found].count("sql.md") >= 5
    for page, command, shown in found:
        printed = output_of(command, home)
        assert header(printed) == header(shown), f"{page}: {command}"


@pytest.mark.parametrize("name", ["README.md", "docs/sql.md"])
def test_every_query_has_its_output(repository: Path, name: str) -> None:
    text = (repository / name).read_text()
    assert text.count('overedit sql "SELECT') - text.count('| `overedit sql "SELECT') == len(
        examples(repository / name)
    )


def test_make_examples_renews_the_pages_with_examples(repository: Path) -> None:
    line = next(line for line in (repository / "Makefile").read_text().splitlines() if "tests.docs.examples" in line)
    named = {repository / name for name in line.split("tests.docs.examples")[1].split()}
    assert named == {page for page in pages(repository) if examples(page)}


def test_outputs_fit_the_page(repository: Path) -> None:
    for page in pages(repository):
        for command, shown in examples(page):
            assert all(len(line) <= COLUMNS for line in shown.splitlines()), f"{page.name}: {command}"


def test_outputs_are_renewed(tmp_path: Path, home: Path) -> None:
    command = 'overedit sql "SELECT count(*) AS n\n    FROM trajectories" --format csv'
    page = f"Text.\n\n```bash\n{command}\n```\n\n```text\nold\n```\nMore.\n"
    made = with_outputs(page, home)
    assert made == page.replace("old\n", "n\n3\n")
    assert with_outputs(made, home) == made


def test_a_failing_query_is_an_error(home: Path) -> None:
    with pytest.raises(RuntimeError, match="exit code 2"):
        output_of('overedit sql "SELECT nothing FROM nowhere"', home)


def header(text: str) -> list[str]:
    """Column names: from a table's first row between rules, or from the first line of CSV."""
    first = next(line for line in text.splitlines() if not line.startswith(("┏", "╭", "┌")))
    return [name.strip() for name in re.split(r"[┃│|,]", first) if name.strip()]
