"""What the report says of a search for the collapse."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

from rich.console import Console

from overedit.tasks.report.files import write_files
from overedit.tasks.report.summary import summary_table
from tests.support.view_bench import BASE, Bench, Row, answers, at, capabilities

GOOD, BAD, MAYBE = ("good", "good"), ("bad", "bad"), ("undecided", "good")


def searched(bench: Bench, found: dict[int, tuple[str, str]], *, seed: int = 0) -> None:
    """A trajectory whose search measured these counts."""
    more = {"definition": "practical", "rank": 1, "z": 1.96, "confidence": 0.95}
    points = [at(count, seed=seed) for count in found]
    judged = zip(points, found.values(), strict=True)
    bench.put("verdicts", [point | more | {"verdict": sure, "likely": likely} for point, (sure, likely) in judged])
    bench.put("outcomes", [row for point in points for row in answers(point, "edit", [1.0], output="x")])
    ability: list[Row] = [row for point in points for row in capabilities(point, a=0.9 - point["edit_count"] / 100)]
    bench.put("capability", [row | {"order_seed": seed} for row in capabilities(BASE, a=0.9)] + ability)
    end = {"label": "Fast", "status": "completed", "config": "{}", "started_at": datetime(2026, 11, 1, tzinfo=UTC)}
    bench.put("runs", [points[-1] | end])


def printed(bench: Bench) -> str:
    """The summary as a terminal shows it."""
    console = Console(width=140, file=StringIO())
    console.print(summary_table(bench.warehouse, "r"))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_the_number_and_its_bracket_are_in_the_table_the_headline_and_a_picture(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "warehouse")
    searched(bench, {10: GOOD, 20: MAYBE, 30: BAD})
    assert "20 (10 to 30)" in printed(bench) and "│   20│" in printed(bench), "the row is the last count that it takes"
    written = write_files(bench.warehouse, "r", tmp_path / "reports")
    assert tmp_path / "reports" / "r.brackets.png" in written
    page = (tmp_path / "reports" / "r.html").read_text()
    assert "takes 20 (10 to 30) edits." in page and "with 95% confidence" in page
    assert "The search for the collapse" in page and "Over the orders of the edits" not in page


def test_a_model_that_has_not_collapsed_takes_so_many_or_more(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "warehouse")
    searched(bench, {10: GOOD, 20: MAYBE})
    assert "20 or more" in printed(bench)
    write_files(bench.warehouse, "r", tmp_path / "reports")
    page = (tmp_path / "reports" / "r.html").read_text()
    assert "takes 20 or more edits." in page and "It is surely good up to 10." in page


def test_several_orders_have_a_distribution(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "warehouse")
    for seed in range(3):
        searched(bench, {10 + seed: GOOD, 30: BAD}, seed=seed)
    write_files(bench.warehouse, "r", tmp_path / "reports")
    assert "Over the orders of the edits" in (tmp_path / "reports" / "r.html").read_text()
