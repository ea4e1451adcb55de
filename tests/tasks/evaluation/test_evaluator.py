"""What `measure` asks of the engine, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overedit.editing.requests import EditRequest
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.engine import lazy
from overedit.tasks.engine.lazy import LazyEngine
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.evaluator import measure
from overedit.tasks.evaluation.measured import MeasuredCheckpoint
from overedit.tasks.evaluation.options import EvaluationOptions, MeasureOptions, PerplexityOptions
from overedit.tasks.evaluation.probing import EvaluationResult, StageCost
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.runs.run import Run, TrajectoryPoint
from overedit.tasks.system.progress import unseen


class StartedEngine:
    """An engine that starts; what it is asked is answered by the patched measures."""

    kind = "transformers"
    start_seconds = 3.0

    def close(self) -> None: ...


def pristine_model(home: Path) -> MeasuredCheckpoint:
    """The pristine model of a run with one request."""
    run = Run(name="r", home=home, model="m", dataset="d")
    point = TrajectoryPoint(run=run, trajectory="base", method="none", order_seed=0, edit_count=0)
    requests = RequestStore([EditRequest(case_id="1", prompt="a", target_new="b")])
    return MeasuredCheckpoint(point, requests, {}, (1,), None, model_digest="0")


@pytest.mark.parametrize("evaluated", [True, False], ids=["outcomes", "perplexity alone"])
def test_the_engine_is_started_before_a_measures_clock_runs(
    evaluated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "texts.txt").write_text("A text.\n")
    options = MeasureOptions(
        evaluation=EvaluationOptions(),
        perplexity=PerplexityOptions(corpus=tmp_path / "texts.txt"),
        capability=CapabilityOptions(),
        engine=EngineOptions(kind="transformers"),
    )
    measured = pristine_model(tmp_path)
    monkeypatch.setattr(lazy, "open_engine", lambda *_: StartedEngine())
    costs = [StageCost("generate", 0.5, 1), StageCost("score", 0.5, 1)]
    monkeypatch.setattr(
        "overedit.tasks.evaluation.evaluator.evaluate_checkpoint", lambda *_, **__: EvaluationResult([], costs)
    )
    monkeypatch.setattr("overedit.tasks.evaluation.evaluator.measure_perplexity", lambda *_: [])
    if not evaluated:
        with LazyEngine(ModelReference("model"), options.engine) as other:
            measure(measured, options.model_copy(update={"perplexity": PerplexityOptions()}), engine=other, show=unseen)

    engine = LazyEngine(ModelReference("model"), options.engine)
    monkeypatch.setattr("time.perf_counter", lambda: float(bool(engine.starts)))

    def texts(_: Any) -> list[str]:
        assert engine.starts, "the clock runs already"
        return ["A text."]

    monkeypatch.setattr("overedit.tasks.evaluation.evaluator.corpus_texts", texts)
    measure(measured, options, engine=engine, show=unseen)
    assert engine.starts == [("transformers", 3.0)]
    stored = {
        row["stage"]: row["seconds"] for row in measured.point.run.warehouse.rows("costs", measured.point.partition)
    }
    assert stored == {"generate": 0.5, "score": 0.5, "perplexity": 0.0}


def test_a_complete_checkpoint_starts_no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = MeasureOptions(
        evaluation=EvaluationOptions(protocols=("generated",)),
        perplexity=PerplexityOptions(),
        capability=CapabilityOptions(),
        engine=EngineOptions(kind="transformers"),
    )
    measured = pristine_model(tmp_path)
    started: list[int] = []
    monkeypatch.setattr(lazy, "open_engine", lambda *_: started.append(1) or StartedEngine())
    monkeypatch.setattr(
        "overedit.tasks.evaluation.evaluator.evaluate_checkpoint",
        lambda *_, **__: EvaluationResult([], [StageCost("generate", 0.5, 1)]),
    )
    for _ in range(2):
        with LazyEngine(ModelReference("model"), options.engine) as engine:
            measure(measured, options, engine=engine, show=unseen)
    assert started == [1]
