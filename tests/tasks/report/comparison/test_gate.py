"""The gate: which differences count, what fails, and how often noise raises an alarm."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from overedit.tasks.report.comparison.differences import Difference, Point
from overedit.tasks.report.comparison.gate import judge, judged, verdict_text
from overedit.tasks.report.comparison.limits import GateOptions
from overedit.tasks.warehouse.layout import stage_path
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.synthetic_run import run_row


def difference(measure: str, change: float | None, p: float, kind: str = "outcome") -> Difference:
    after = 0.8 + change if change is not None else float("inf")
    return Difference(Point("M", 10, kind, measure), 0.8, after, change, None, None, 100, p, p)


def test_a_number_fails_if_it_moved_by_more_than_chance_and_by_more_than_its_limit() -> None:
    limits = GateOptions(reliability=-0.02, perplexity=1.05)
    given = [
        (difference("reliability", -0.1, 0.001), "moved", True),
        (difference("reliability", -0.1, 0.2), "within noise", False),
        (difference("reliability", -0.01, 0.001), "moved", False),
        (difference("reliability", 0.1, 0.001), "moved", False),
        (difference("locality", -0.1, 0.001), "moved", False),
        (difference("corpus", 1.2, 0.001, "perplexity"), "moved", True),
        (difference("corpus", 0.5, 0.001, "perplexity"), "moved", False),
        (difference("corpus", None, 1.0, "perplexity"), "moved", True),
    ]
    found = judged([one for one, _, _ in given], limits)
    assert [(verdict, failed) for _, verdict, failed in found] == [(verdict, failed) for _, verdict, failed in given]
    anything = judged([difference("locality", 0.1, 0.001)], GateOptions(any_significant=True))
    assert anything[0][1:] == ("moved", True)


@pytest.mark.parametrize(
    ("conditions", "values"),
    [
        (["reliability < -0.02", "perplexity>1.05"], {"reliability": -0.02, "perplexity": 1.05}),
        (["any_significant"], {"any_significant": True}),
        ([], {}),
    ],
)
def test_conditions_of_the_command_line(conditions: list[str], values: dict[str, float]) -> None:
    assert GateOptions.parsed(conditions) == GateOptions.model_validate(values)


@pytest.mark.parametrize("condition", ["reliability > -0.02", "speed < 1", "reliability", "perplexity < 1", "x < -"])
def test_a_condition_that_is_none(condition: str) -> None:
    with pytest.raises(ValueError, match=r"fail-if: '.*' is not understood; accepted: .* reliability, generalization"):
        GateOptions.parsed([condition])


def test_a_limit_has_its_sign() -> None:
    with pytest.raises(ValueError, match="less than or equal to 0"):
        GateOptions.parsed(["reliability < 0.02"])


def test_words() -> None:
    rows = [{"verdict": verdict} for verdict in ("moved", "within noise", "not comparable")]
    assert verdict_text(rows) == "1 number moved, 1 not comparable"
    assert verdict_text(rows[:1] * 3) == "3 numbers moved"
    assert verdict_text(rows[1:2]) == "no number moved"


ANY = GateOptions(any_significant=True)
SEEDS, CASES, PROBES = 5, 40, ("edit", "rephrase", "locality")


def instance(warehouse: Warehouse, name: str, right: np.ndarray) -> None:
    """Store an instance of five orders; `right` is (seed, probe, case), bool."""
    files = []
    for seed in range(SEEDS):
        identity = {"run": "r", "trajectory": "m", "model": "m", "method": "ft_l", "dataset": "d"}
        identity |= {"order_seed": seed, "edit_count": 10}
        partition = {key: identity[key] for key in ("run", "trajectory", "order_seed", "edit_count")}
        rows = [
            identity
            | {"position": case + 1, "case_id": str(case), "probe": probe, "probe_index": 0, "protocol": "generated"}
            | {"prompt": str(case), "target": "t", "score": float(right[seed, at, case])}
            | {"agreement": float(right[seed, at, case]) if probe == "locality" else None}
            for at, probe in enumerate(PROBES)
            for case in range(CASES)
        ]
        for table, content in (("outcomes", rows), ("runs", [identity | run_row("M")])):
            warehouse.write(table, content, partition=partition, key=name)
            path = stage_path(table, partition, name)
            files.append({"table_name": table, "path": path, "file": Path(path).name, "computed": True})
    whole = {"run": "r", "instance": name}
    warehouse.write("instance_files", [whole | file for file in files], partition=whole, key="k")


@pytest.mark.slow
@pytest.mark.long
def test_noise_alone_raises_no_alarm_in_95_of_100_comparisons(tmp_path: Path) -> None:
    """Each answer is right with its own probability, drawn anew in every instance; `make operation` has 100."""
    comparisons = 100 if os.environ.get("OVEREDIT_OPERATION") else 20
    rng = np.random.default_rng(0)
    chances = rng.uniform(0.2, 0.95, (SEEDS, len(PROBES), CASES))
    warehouse = Warehouse(tmp_path)
    alarms = 0
    for number in range(15):
        instance(warehouse, f"i{number:02}", rng.random(chances.shape) < chances)
    pairs = [(first, second) for first in range(15) for second in range(first)][:comparisons]
    for first, second in pairs:
        verdict = judge(warehouse, "r", f"i{second:02}", f"i{first:02}", ANY, protocol="generated")
        assert len(verdict.rows) == len(PROBES)
        alarms += bool(verdict.failures)
    assert alarms <= 0.05 * comparisons

    worse = rng.random(chances.shape) < chances - 0.15
    instance(warehouse, "worse", worse)
    assert judge(warehouse, "r", "i00", "worse", ANY, protocol="generated").failures
