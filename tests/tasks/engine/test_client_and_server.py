"""An engine in a process of its own: it answers as one in this process does, and its death is an error, not the end."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import overedit.tasks.engine.lazy as lazy
from overedit.editing.requests import EditRequest, Probe
from overedit.editing.trajectory.checkpoint import DamagedCheckpointError
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.engine.base import Engine, EngineDiedError
from overedit.tasks.engine.client import EngineClient
from overedit.tasks.engine.lazy import LazyEngine
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.capability.scoring import measure_capability
from overedit.tasks.evaluation.evaluator import ENGINES_A_CHECKPOINT, measure
from overedit.tasks.evaluation.measured import MeasuredCheckpoint
from overedit.tasks.evaluation.options import EvaluationOptions, MeasureOptions, PerplexityOptions
from overedit.tasks.models.reference import ModelReference
from overedit.tasks.runs.run import Run, TrajectoryPoint
from overedit.tasks.system.progress import unseen
from tests.support.forked_engines import fork_engines
from tests.support.lm_eval_tasks import CHOICE, GENERATION, write_tasks
from tests.support.small_model import COLOURS, FACTS, changed
from tests.support.warm_process import WarmProcess

PROMPTS = [prompt for prompt, _ in FACTS]
DOWN = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def general_ability(tmp_path_factory: pytest.TempPathFactory) -> CapabilityOptions:
    """A multiple-choice and a generation task."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [
        {"prompt": prompt, "answer": answer, "label": 0, "choices": [answer, *(c for c in COLOURS if c != answer)]}
        for prompt, answer in FACTS[:20]
    ]
    write_tasks(folder, rows, small_choice=CHOICE, small_generation=GENERATION)
    return CapabilityOptions(tasks=("small_choice", "small_generation"), include_path=folder, trust_task_code=True)


@pytest.fixture(scope="module")
def running(small_model: Path) -> Iterator[EngineClient]:
    engine = EngineClient(ModelReference(str(small_model)), EngineOptions(kind="transformers"))
    yield engine
    engine.close()


@pytest.fixture
def distant(running: EngineClient) -> Iterator[EngineClient]:
    """A transformers engine in a process of its own that holds the base."""
    yield running
    running.swap(None)


@pytest.fixture
def short_lived(
    small_model: Path, warm_process: WarmProcess, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EngineClient]:
    fork_engines(warm_process, monkeypatch)
    engine = EngineClient(ModelReference(str(small_model)), EngineOptions(kind="transformers"))
    yield engine
    engine.close()


def test_it_answers_as_an_engine_in_this_process(
    distant: Engine,
    transformers_engine: Engine,
    small_weights: dict[str, torch.Tensor],
    checkpoint: Any,
    general_ability: CapabilityOptions,
) -> None:
    edited = checkpoint(changed(small_weights, DOWN))
    both = (distant, transformers_engine)
    num_bytes = sum(tensor.nbytes for tensor in changed(small_weights, DOWN).values())
    for step in (None, edited):
        reports = [engine.swap(step) for engine in both]
        assert all(report.verified for report in reports)
        assert reports[0].bytes_written == (num_bytes if step else 0)  # the other one puts back what other tests left
        for ask in (
            lambda engine: engine.generate(PROMPTS, max_tokens=8, stop=(".",)),
            lambda engine: engine.score(FACTS),
            lambda engine: engine.token_nlls([*PROMPTS[:3], ""]),
            lambda engine: measure_capability(engine, general_ability),
        ):
            ours, theirs = (ask(engine) for engine in both)
            assert ours == theirs and type(ours[0]) is type(theirs[0])


def test_what_is_wrong_with_a_question_is_said_and_harms_nothing(
    distant: Engine, small_weights: dict[str, torch.Tensor], checkpoint: Callable[[Mapping[str, torch.Tensor]], Path]
) -> None:
    with pytest.raises(ValueError, match="longer than the 63"):
        distant.generate(["Ba" * 200], max_tokens=1)
    damaged = checkpoint(changed(small_weights, DOWN))
    (damaged / "weights.safetensors").write_bytes(b"no tensors")
    with pytest.raises(DamagedCheckpointError, match="cannot be read"):
        distant.swap(damaged)
    assert len(distant.generate(PROMPTS[:2], max_tokens=2)) == 2


def test_a_model_that_cannot_be_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json|model"):
        EngineClient(ModelReference(str(tmp_path)), EngineOptions(kind="transformers"))


def test_an_engine_that_is_killed_while_it_answers_says_so(short_lived: EngineClient) -> None:
    os.kill(short_lived.pid, signal.SIGSTOP)  # so the answer cannot come before the end
    threading.Timer(0.3, os.kill, (short_lived.pid, signal.SIGKILL)).start()
    with pytest.raises(EngineDiedError, match=r"transformers engine died during generate: killed by SIGKILL"):
        short_lived.generate(PROMPTS, max_tokens=50)
    with pytest.raises(EngineDiedError):
        short_lived.score(FACTS)


def test_an_error_that_is_not_about_the_question_ends_it_with_its_name(short_lived: EngineClient) -> None:
    with pytest.raises(EngineDiedError, match=r"AttributeError: .*no_such_method"):
        short_lived._ask("no_such_method", requests=[])


def test_an_engine_that_died_between_two_questions_says_so_at_the_next(short_lived: EngineClient) -> None:
    os.kill(short_lived.pid, signal.SIGKILL)
    short_lived._process.wait()
    for _ in range(2):
        with pytest.raises(EngineDiedError, match="during score: killed by SIGKILL"):
            short_lived.score(FACTS)


def test_an_interrupted_question_ends_it(short_lived: EngineClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(question: bytes) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(short_lived, "_exchange", interrupted)
    with pytest.raises(KeyboardInterrupt):
        short_lived.generate(PROMPTS[:1], max_tokens=1)
    monkeypatch.undo()
    with pytest.raises(EngineDiedError):
        short_lived.generate(PROMPTS[:1], max_tokens=1)


ORPHANED = """
import sys
from overedit.tasks.engine.client import EngineClient
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.models.reference import ModelReference
engine = EngineClient(ModelReference(sys.argv[1]), EngineOptions(kind="transformers"))
print(engine.pid, flush=True)
while True:
    engine.generate(["The colour of"] * 500, max_tokens=50)
"""


@pytest.mark.slow
def test_it_ends_with_the_run_that_started_it(warm_process: WarmProcess, small_model: Path, tmp_path: Path) -> None:
    run = warm_process.run(ORPHANED, str(small_model), log=tmp_path / "log.txt")
    deadline = time.monotonic() + 60
    while "\n" not in run.said():
        assert run.poll() is None and time.monotonic() < deadline, run.said()
        time.sleep(0.01)
    engine = Path("/proc") / run.said().split()[-1]
    assert engine.is_dir()
    run.kill()
    while engine.is_dir() and "Z" not in (engine / "stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "the engine outlives its run"
        time.sleep(0.05)


# a checkpoint whose measuring kills the engine


@pytest.fixture
def options(general_ability: CapabilityOptions, tmp_path: Path) -> MeasureOptions:
    (tmp_path / "texts.txt").write_text("\n".join(PROMPTS[:5]))
    return MeasureOptions(
        evaluation=EvaluationOptions(max_tokens=40),
        perplexity=PerplexityOptions(corpus=tmp_path / "texts.txt"),
        capability=general_ability,
        engine=EngineOptions(kind="vllm"),
    )


def measured_in(home: Path, folder: Path | None) -> MeasuredCheckpoint:
    requests = RequestStore(
        EditRequest(
            case_id=f"{i}",
            prompt=prompt,
            subject=None,
            target_new="red",
            target_true=answer,
            locality=(Probe(prompt=PROMPTS[i + 1], answer=FACTS[i + 1][1]),),
        )
        for i, (prompt, answer) in enumerate(FACTS[:60])
    )
    run = Run(name="r", home=home, model="small", dataset="facts")
    method, count = ("none", 0) if folder is None else ("test", 60)
    point = TrajectoryPoint(
        run=run, trajectory="base" if folder is None else "t", method=method, order_seed=0, edit_count=count
    )
    return MeasuredCheckpoint(point, requests, {}, (60,), folder, model_digest="0")


TABLES = ("outcomes", "perplexity", "capability", "capability_samples")


def rows_of(home: Path, table: str) -> list[dict[str, Any]]:
    run = Run(name="r", home=home, model="small", dataset="facts")
    return run.warehouse.query(f"SELECT * FROM {table} ORDER BY ALL").to_pylist()


@pytest.mark.slow
def test_vllm_killed_in_the_middle_is_started_again_and_the_rows_are_the_same(
    small_model: Path,
    small_weights: dict[str, torch.Tensor],
    checkpoint: Any,
    options: MeasureOptions,
    warm_vllm: WarmProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fork_engines(warm_vllm, monkeypatch)
    folder = checkpoint(changed(small_weights, DOWN))
    with LazyEngine(ModelReference(str(small_model)), options.engine) as engine:
        for step in (None, folder):
            measure(measured_in(tmp_path / "whole", step), options, engine=engine, show=unseen)
        measure(measured_in(tmp_path / "shot", None), options, engine=engine, show=unseen)
        assert len(engine.starts) == 1

        deadly = {"generate", "loglikelihood"}
        exchange = EngineClient._exchange

        def shot(self: EngineClient, question: bytes) -> bytes:
            call = json.loads(question)["call"]
            if call in deadly:
                deadly.remove(call)
                threading.Timer(0.05, os.kill, (self.pid, signal.SIGKILL)).start()
            return exchange(self, question)

        monkeypatch.setattr(EngineClient, "_exchange", shot)
        measure(measured_in(tmp_path / "shot", folder), options, engine=engine, show=unseen)
        assert len(engine.starts) == 3 and not deadly
    for table in TABLES:
        assert rows_of(tmp_path / "shot", table) == rows_of(tmp_path / "whole", table) != []


class DyingEngine:
    """Answers nothing: it dies at every question that it is asked while `deaths` are left."""

    kind = "vllm"
    start_seconds = 1.0
    deaths = 0

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def score(self, pairs: Sequence[tuple[str, str]]) -> Any:
        if DyingEngine.deaths:
            DyingEngine.deaths -= 1
            raise EngineDiedError("dead")
        return self._engine.score(pairs)

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("deaths", [ENGINES_A_CHECKPOINT - 1, ENGINES_A_CHECKPOINT])
def test_only_so_many_engines_may_die_over_a_checkpoint(
    transformers_engine: Engine,
    small_weights: dict[str, torch.Tensor],
    checkpoint: Any,
    options: MeasureOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    deaths: int,
) -> None:
    started: list[DyingEngine] = []

    def start(*_: Any, **__: Any) -> DyingEngine:
        transformers_engine.swap(None)  # a new engine holds the base's weights
        started.append(DyingEngine(transformers_engine))
        return started[-1]

    monkeypatch.setattr(lazy, "open_engine", start)
    few = options.model_copy(update={"capability": CapabilityOptions(), "perplexity": PerplexityOptions()})
    folder = checkpoint(changed(small_weights, DOWN))
    with LazyEngine(ModelReference("model"), few.engine) as engine:
        measure(measured_in(tmp_path, None), few, engine=engine, show=unseen)
        DyingEngine.deaths = deaths
        if deaths < ENGINES_A_CHECKPOINT:
            measure(measured_in(tmp_path, folder), few, engine=engine, show=unseen)
        else:
            with pytest.raises(EngineDiedError):
                measure(measured_in(tmp_path, folder), few, engine=engine, show=unseen)
            assert not rows_of(tmp_path, "outcomes WHERE edit_count > 0")
        assert [one.closed for one in started[:deaths]] == [True] * deaths
        measure(measured_in(tmp_path, folder), few, engine=engine, show=unseen)
        assert len(engine.starts) == deaths + 1
    alone = LazyEngine(ModelReference("model"), few.engine)
    alone.ensure_weights(folder)
    measure(measured_in(tmp_path / "alone", None), few, engine=alone, show=unseen)
    measure(measured_in(tmp_path / "alone", folder), few, engine=alone, show=unseen)
    assert rows_of(tmp_path, "outcomes") == rows_of(tmp_path / "alone", "outcomes")
