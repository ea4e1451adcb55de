"""The gate before the benchmarks: its levels, the same in SQL, and what a run measures behind it."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from overedit.editing.requests import EditRequest
from overedit.editing.storage.checksums import digest
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.evaluation.capability.gating import is_due, level, mean_nll
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.capability.scoring import Capability
from overedit.tasks.evaluation.evaluator import measure
from overedit.tasks.evaluation.measured import MeasuredCheckpoint
from overedit.tasks.evaluation.options import EvaluationOptions, MeasureOptions, PerplexityOptions
from overedit.tasks.evaluation.probing import EvaluationResult
from overedit.tasks.runs.run import Run, TrajectoryPoint
from overedit.tasks.system.progress import unseen
from overedit.tasks.system.stage_key import SourceIndex
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.checkpoints import WriteCheckpoint


def test_levels_are_steps_of_the_ratio_to_the_nearest() -> None:
    step = math.log(1.1)
    moved = {0.0: 0, 0.49: 0, 0.51: 1, 1.49: 1, 2.6: 3, -0.49: 0, -0.51: -1, -7.2: -7}
    assert {steps: level(2.0 + steps * step, 2.0, ratio=1.1) for steps in moved} == moved


@pytest.mark.parametrize("nll", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_is_a_level_of_its_own(nll: float) -> None:
    assert level(nll, 2.0, ratio=1.1) is None
    assert is_due(nll, 2.0, 2.0, ratio=1.1)
    assert not is_due(nll, math.nan, 2.0, ratio=1.1)
    assert is_due(2.0, nll, 2.0, ratio=1.1)


def test_what_was_not_measured_speaks_for_no_leaving_out() -> None:
    assert all(is_due(*values, ratio=2) for values in [(None, 1.0, 1.0), (1.0, None, 1.0), (1.0, 1.0, None)])


def test_the_mean_is_over_tokens_of_texts_that_have_them() -> None:
    rows = [{"nll": 10.0, "num_tokens": 5}, {"nll": 2.0, "num_tokens": 1}, {"nll": None, "num_tokens": 4}]
    assert mean_nll(rows) == 2.0
    assert mean_nll([]) is None
    assert mean_nll([{"nll": None, "num_tokens": 4}]) is None


def test_a_slow_drift_does_not_slip_through() -> None:
    """What is skipped is within a step of the last one evaluated, however slowly perplexity moves."""
    generator, step = np.random.default_rng(0), math.log(1.05)
    for drift in (0.001, 0.01, 0.1, -0.01):
        nlls = 2.0 + np.cumsum(generator.normal(drift * step, 0.3 * step, 400))
        before, evaluated, skipped = 2.0, 2.0, 0
        for now in map(float, nlls):
            if is_due(now, before, 2.0, ratio=1.05):
                evaluated = now
            else:
                skipped += 1
                assert abs(now - evaluated) < step * (1 + 1e-9)
            before = now
        assert skipped


def test_sql_has_the_same_levels(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    nlls = [*generator.normal(3, 2, 300).tolist(), math.inf, math.nan, 700.5]
    with Warehouse(tmp_path).connect() as connection:
        for ratio in (1.01, 1.05, 1.37, 2.0):
            sql = "SELECT list_transform($nlls, lambda nll: gate_level(nll::DOUBLE, 2.5, $ratio::DOUBLE))"
            (found,) = connection.execute(sql, {"nlls": nlls, "ratio": ratio}).fetchone() or ()
            assert found == [level(nll, 2.5, ratio=ratio) for nll in nlls]
            assert len(set(found)) > 5


@pytest.mark.parametrize("seed", range(3))
def test_the_view_skips_what_the_gate_skips(tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    counts = list(range(1, 41))
    nlls = [2.0, *(2.0 + np.cumsum(generator.normal(0, 0.03, len(counts)))).tolist()]
    nlls[20:23] = [math.nan, math.inf, 2.0]
    identity = {"run": "r", "model": "m", "dataset": "d", "order_seed": 0}
    text = {"corpus": "c", "text_id": 0, "num_tokens": 10}
    rows = [
        identity | text | {"trajectory": trajectory, "method": method, "edit_count": count, "nll": 10 * nll}
        for count, nll in zip([0, *counts], nlls, strict=True)
        for trajectory, method in [("t", "x") if count else ("base", "none")]
    ]
    warehouse = Warehouse(tmp_path)
    warehouse.write("perplexity", rows, partition={"run": "r"}, key="k")
    ended = identity | {"trajectory": "t", "method": "x", "edit_count": 40}
    warehouse.write("runs", [ended], partition={"run": "r"}, key="k")
    for row in warehouse.query("SELECT gate_ratio, num_counts, num_skipped FROM capability_gating").to_pylist():
        skipped = [
            not is_due(10 * now / 10, 10 * before / 10, 10 * nlls[0] / 10, ratio=row["gate_ratio"])
            for before, now in itertools.pairwise(nlls[:-1])  # the last is always evaluated
        ]
        assert (row["num_counts"], row["num_skipped"]) == (40, sum(skipped))


# ---- what a run measures


class NoEngine:
    """Holds whatever it is given and answers nothing."""

    kind = "none"

    def ensure_weights(self, folder: Path | None) -> None: ...

    def started(self) -> NoEngine:
        return self


STOPS = (1, 10, 20, 30, 40)
PERPLEXITIES = {0: 4.0, 1: 4.04, 10: 4.5, 20: 4.55, 30: 9.0, 40: 9.0}


@pytest.fixture
def measured_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The edit counts at which capability is evaluated, in the order in which that happens."""
    here: list[int] = []
    evaluated: list[int] = []

    def evaluate(engine: object, requests: object, count: int, *args: object, **options: object) -> EvaluationResult:
        here.append(count)
        return EvaluationResult(rows=[], costs=[])

    def perplexity(engine: object, texts: object, corpus: str) -> list[dict[str, Any]]:
        return [{"corpus": corpus, "text_id": 0, "nll": 10 * math.log(PERPLEXITIES[here[-1]]), "num_tokens": 10}]

    def capability(engine: object, options: object, **_: object) -> Capability:
        evaluated.append(here[-1])
        return Capability([], [])

    monkeypatch.setattr("overedit.tasks.evaluation.evaluator.evaluate_checkpoint", evaluate)
    monkeypatch.setattr("overedit.tasks.evaluation.evaluator.measure_perplexity", perplexity)
    monkeypatch.setattr("overedit.tasks.evaluation.evaluator.measure_capability", capability)
    # keys that follow from the inputs alone: a stage's own follows from its code as well, which takes a second to read
    monkeypatch.setattr(SourceIndex, "key", lambda _, *modules, **inputs: digest([modules, inputs]))
    return evaluated


def options_of(folder: Path, **capability: Any) -> MeasureOptions:
    (folder / "texts.txt").write_text("A text.\n")
    return MeasureOptions(
        evaluation=EvaluationOptions(),
        perplexity=PerplexityOptions(corpus=folder / "texts.txt"),
        capability=CapabilityOptions(tasks=("t",), **capability),
        engine=EngineOptions(kind="transformers"),
    )


def measure_trajectory(home: Path, options: MeasureOptions, write: WriteCheckpoint) -> None:
    run = Run(name="r", home=home, model="m", dataset="d")
    requests = RequestStore([EditRequest(case_id="1", prompt="a", subject=None, target_new="b", target_true=None)])
    for count in (0, *STOPS):
        trajectory, method = ("t", "x") if count else ("base", "none")
        point = TrajectoryPoint(run=run, trajectory=trajectory, method=method, order_seed=0, edit_count=count)
        folder = write({"weight": torch.full((1,), float(count))}) if count else None
        measured = MeasuredCheckpoint(point, requests, {}, STOPS, folder, model_digest="0")
        measure(measured, options, engine=NoEngine(), show=unseen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ({"when": "every"}, [0, *STOPS]),
        ({"when": "last"}, [0, 40]),
        # 1 is a hundredth off; 10 an eighth; 20 a hundredth from 10; 30 twice; 40 is as 30 was, and the last
        ({"when": "gated", "gate_ratio": 1.1}, [0, 10, 30, 40]),
        ({"when": "gated", "gate_ratio": 100.0}, [0, 40]),
        ({"when": "gated", "gate_ratio": 1.0001}, [0, 1, 10, 20, 30, 40]),
    ],
)
def test_a_run_evaluates_capability_where_the_level_changes(
    tmp_path: Path,
    checkpoint: WriteCheckpoint,
    measured_at: list[int],
    capability: dict[str, Any],
    expected: list[int],
) -> None:
    options = options_of(tmp_path, **capability)
    measure_trajectory(tmp_path, options, checkpoint)
    assert measured_at == expected


def test_a_run_that_continues_evaluates_nothing_twice_and_nothing_else(
    tmp_path: Path, checkpoint: WriteCheckpoint, measured_at: list[int]
) -> None:
    options = options_of(tmp_path, when="gated", gate_ratio=1.1)
    measure_trajectory(tmp_path, options, checkpoint)
    measure_trajectory(tmp_path, options, checkpoint)
    assert measured_at == [0, 10, 30, 40]
