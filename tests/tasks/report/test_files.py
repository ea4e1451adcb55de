"""The report as files and on a terminal: the summary, Markdown, the pictures for papers."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from overedit.tasks.report import figures
from overedit.tasks.report.data import RunData, collect
from overedit.tasks.report.figures import save_figures
from overedit.tasks.report.files import write_files
from overedit.tasks.report.summary import summary_markdown, summary_table
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.synthetic_run import METHODS, RUN, identity, outcomes, partition, run_row
from tests.support.synthetic_views import with_findings


def test_the_summary_fits_a_terminal(synthetic: Warehouse) -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(summary_table(synthetic, RUN))
    text = capture.get()
    assert max(len(line) for line in text.splitlines()) <= 80 and "…" not in text
    for name in METHODS.values():
        assert name in text


def tables(markdown: str) -> list[list[str]]:
    """The tables of a Markdown text, each a list of its lines."""
    blocks = [block.splitlines() for block in markdown.split("\n\n")]
    return [block for block in blocks if block[0].startswith("|")]


def test_the_summary_as_markdown(synthetic_data: RunData) -> None:
    text = summary_markdown(synthetic_data, {"Collapse curve": "a picture.png"})
    assert text.count("| method | edits | rel. % |") == 3
    for table in tables(text)[:3]:
        assert table[0].startswith("| method | edits | rel. % |")
        assert len(table) == 2 + len(METHODS) and len({line.count("|") for line in table}) == 1
    assert sum(line.startswith("- **") for line in text.splitlines()) == len(METHODS)
    assert "![Collapse curve](a%20picture.png)" in text
    assert "- Only one order of the edits was tried" in text


@pytest.mark.parametrize("protocol", ["generated", "teacher_forced"])
def test_each_protocols_table_has_its_own_numbers(synthetic: Warehouse, synthetic_data: RunData, protocol: str) -> None:
    text = summary_markdown(synthetic_data)
    heading = f"## {protocol.replace('_', '-').capitalize()} protocol"
    table = text.split(heading)[1].split("\n\n")[1].splitlines()
    (row,) = (line for line in table if "UltraEdit" in line)
    (value,) = synthetic.query(
        "SELECT value FROM reliability_by_edit_count WHERE label = 'UltraEdit' AND measure = 'reliability' "
        f"AND protocol = '{protocol}' AND edit_count = 1000"
    )["value"].to_pylist()
    assert row.split(" | ")[2] == f"{100 * value:.1f}"


def test_presets_are_tables_as_well(synthetic_data: RunData) -> None:
    *_, table = tables(summary_markdown(with_findings(synthetic_data)))
    assert table[0] == "| method | edits | score | fluency | consistency | text |"
    assert table[2].split(" | ")[1:] == ["1,000", "70.0 %", "5", "-", "64 |"]


def test_every_file(synthetic: Warehouse, tmp_path: Path) -> None:
    files = write_files(synthetic, RUN, tmp_path / "made", format="all")
    endings = ["html", "png", "retention.png", "perplexity-capability.png", "md"]
    assert [path.name for path in files] == [f"{RUN}.{ending}" for ending in endings]
    assert sorted((tmp_path / "made").iterdir()) == sorted(files)
    text, pictures = files[-1].read_text(), files[1:4]
    assert all(f"]({path.name})" in text for path in pictures)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert [int.from_bytes(path.read_bytes()[16:20]) for path in pictures] == [1920, 1920, 1120]


@pytest.mark.parametrize(
    ("format", "endings"),
    [
        (None, [".html", ".png", ".retention.png", ".perplexity-capability.png"]),
        ("html", [".html"]),
        ("markdown", [".png", ".retention.png", ".perplexity-capability.png", ".md"]),
        ("png", [".png", ".retention.png", ".perplexity-capability.png"]),
    ],
)
def test_formats(
    synthetic: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str | None, endings: list[str]
) -> None:
    monkeypatch.setattr(figures, "_picture", lambda *_: b"drawn")
    files = write_files(synthetic, RUN, tmp_path, format=format)
    assert [path.name for path in files] == [f"{RUN}{ending}" for ending in endings]
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_a_picture_is_a_function_of_the_rows_and_the_protocol(
    synthetic: Warehouse, synthetic_data: RunData, tmp_path: Path
) -> None:
    first = save_figures(synthetic_data, tmp_path / "first.html")
    other = save_figures(synthetic_data, tmp_path / "other.html", protocol="teacher_forced")
    again = save_figures(collect(synthetic, RUN), tmp_path / "again.html")
    assert again["collapse-curve"].read_bytes() == first["collapse-curve"].read_bytes()
    assert [name for name in first if first[name].read_bytes() != other[name].read_bytes()] == [
        "collapse-curve",
        "retention",
    ], "perplexity and capability are the same under every protocol"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"format": "pdf"}, "format: 'pdf' is unknown; choose one of html, markdown, png, all"),
        ({"protocol": "typed"}, "protocol: 'typed' is unknown; choose one of generated, teacher_forced, probability"),
        ({"run": "nightly"}, r"run: 'nightly' is not in .*; its runs are: synthetic"),
    ],
)
def test_what_cannot_be_written_is_said(
    synthetic: Warehouse, tmp_path: Path, wanted: dict[str, str], said: str
) -> None:
    arguments = {"run": RUN} | wanted
    with pytest.raises(ValueError, match=said):
        write_files(synthetic, arguments.pop("run"), tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_protocol_that_was_not_asked_has_no_pictures(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse")
    row = identity("ft_l", 10) | run_row("FT-L")
    warehouse.write("runs", [row], partition=partition("ft_l", 10), key="k")
    rows = [row for row in outcomes("ft_l", 10, 10, cases=2, seed=0) if row["protocol"] == "probability"]
    warehouse.write("outcomes", rows, partition=partition("ft_l", 10), key="k")
    with pytest.raises(ValueError, match=r"'generated' was not asked in synthetic; choose one of probability"):
        write_files(warehouse, RUN, tmp_path / "reports", format="png", protocol="generated")
    assert [path.name for path in write_files(warehouse, RUN, tmp_path / "reports", format="png")] == [
        "synthetic.png",
        "synthetic.retention.png",
    ], "there is no capability to set perplexity against"
