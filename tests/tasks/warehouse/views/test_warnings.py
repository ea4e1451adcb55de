"""The view of warnings, on hand-made rows."""

from __future__ import annotations

from tests.support.view_bench import Bench, Row, answers, at


def turn(edit_count: int, first: int, last: int, *, on_branch: bool = False, **quantities: float) -> list[Row]:
    edits = {"first_edit": first, "last_edit": last, "on_branch": on_branch}
    return [at(edit_count) | edits | {"quantity": name, "value": value} for name, value in quantities.items()]


def test_nothing_to_warn_of(bench: Bench) -> None:
    bench.put("outcomes", answers(at(1), "edit", [1.0]))
    bench.put("diagnostics", turn(100, 1, 100, unmoved=0, dropped=0))
    assert bench.ask("warnings") == []


def test_reliability_of_0_at_the_first_count_alone(bench: Bench) -> None:
    bench.put("outcomes", answers(at(1), "edit", [0.0]) + answers(at(1), "edit", [0.0], protocol="teacher_forced"))
    bench.put("outcomes", answers(at(1), "edit", [1.0], protocol="probability") + answers(at(10), "edit", [1.0]))
    row = bench.one("warnings")
    assert (row["kind"], row["edit_count"], row["number"], row["total"]) == ("no effect", 1, 1, 1)
    assert row["text"] == (
        "reliability is 0 (generated, teacher-forced) at 1 edit, the first edit count that was measured: "
        "check the settings of the method"
    )


def test_a_collapse_later_on_is_no_such_warning(bench: Bench) -> None:
    bench.put("outcomes", answers(at(1), "edit", [1.0]) + answers(at(10), "edit", [0.0]))
    assert bench.ask("warnings") == []


def test_unmoved_and_dropped_edits_are_summed_over_the_turns_that_led_to_the_last_checkpoint(bench: Bench) -> None:
    bench.put("diagnostics", turn(50, 1, 50, on_branch=True, unmoved=9, dropped=0))  # not continued from
    bench.put("diagnostics", turn(100, 1, 100, unmoved=12, dropped=1))
    bench.put("diagnostics", turn(250, 101, 200, unmoved=3, dropped=0))
    bench.put("diagnostics", turn(250, 201, 250, on_branch=True, unmoved=5, dropped=0))
    dropped, unmoved = bench.ask("warnings")
    assert (unmoved["kind"], unmoved["edit_count"], unmoved["number"], unmoved["total"]) == ("unmoved", 250, 20, 250)
    assert unmoved["text"] == ("20 of 250 edits (8 %) could not move the answer and count as unmoved, not as edited")
    assert (dropped["kind"], dropped["number"], dropped["total"]) == ("dropped", 1, 250)
    assert dropped["text"].startswith("1 of 250 edits (0.4 %) were left out by the method")
