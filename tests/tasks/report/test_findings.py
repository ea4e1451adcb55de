"""Warnings and durability in the terminal, the page and the Markdown."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from overedit.tasks.report.data import RunData
from overedit.tasks.report.findings import durability, durability_markdown, log_warnings, warning_lines, warning_list
from overedit.tasks.report.page import render_report
from overedit.tasks.report.summary import summary_markdown, summary_table
from tests.support.synthetic_run import RUN, fill, identity, partition
from tests.support.synthetic_views import with_findings


@pytest.fixture
def found(synthetic_data: RunData) -> RunData:
    return with_findings(synthetic_data)


def test_a_warning_names_its_trajectory_and_is_near_the_top_of_the_page(found: RunData) -> None:
    lines = warning_lines(found)
    assert len(lines) == 3 and lines[0].endswith(": 12 of 100 edits <could> not move the answer")
    page = render_report(found)
    assert "&lt;could&gt;" in warning_list(found) and warning_list(found) in page
    assert page.index('class="misleading"') < page.index('id="curve"')


def test_warnings_are_logged_and_in_the_markdown(found: RunData, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        log_warnings(found)
    assert len(caplog.records) == 3 and "12 of 100 edits" in caplog.text
    text = summary_markdown(found)
    assert text.index("## Warnings") < text.index("## Generated protocol") < text.index("## Do the edits last?")


def test_the_terminal_shows_the_warnings_of_the_warehouse(tmp_path: Path) -> None:
    warehouse = fill(tmp_path, cases=2, by_count=False)
    turn = {"first_edit": 1, "last_edit": 10, "quantity": "unmoved", "value": 3.0}
    warehouse.write("diagnostics", [identity("ft_l", 10) | turn], partition=partition("ft_l", 10), key="k")
    console = Console(width=80)
    with console.capture() as shown:
        console.print(summary_table(warehouse, RUN))
    assert "warning: FT-L: 3 of 10 edits (30 %) could not move the answer" in shown.get().replace("\n", " ")


def test_each_step_is_a_row_below_the_edits_alone(found: RunData) -> None:
    rows = [line.split(" | ") for line in durability_markdown(found).splitlines()[2:]]
    assert [row[2] for row in rows[:3]] == ["the edits alone", "quantize_int8", "finetune:100"]
    assert [row[3] for row in rows[:3]] == ["90.0", "89.6 (-2.4 to +1.6)", "60.0 (-32.0 to -28.0)"]
    assert durability(found).count("<table>") == len(found.protocols)


def test_nothing_is_shown_where_nothing_was_found(synthetic_data: RunData) -> None:
    without = replace(synthetic_data, views=synthetic_data.views | {"warnings": [], "durability": []})
    assert (warning_lines(without), warning_list(without), durability(without), durability_markdown(without)) == (
        [], "", "", "",
    )  # fmt: skip
    page, text = render_report(without), summary_markdown(without)
    assert not any(word in page + text for word in ("Do the edits last?", "## Warnings", 'class="misleading"'))
