"""Checkpoints whose edits are beside the weights: generated, scored, read and asked by lm-eval."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError

from overedit.editing.methods.grace import METHOD, Grace
from overedit.editing.requests import EditRequest
from overedit.editing.trajectory.checkpoint import read_checkpoint
from overedit.editing.trajectory.runner import run_trajectory
from overedit.editing.trajectory.settings import Schedule, Source, TrajectorySettings
from overedit.flows.config.models import BenchmarkConfig, ScanConfig
from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.engine.transformers_engine import TransformersEngine
from overedit.tasks.models.beside_weights import check_weights_only
from overedit.tasks.models.export import export_checkpoint
from overedit.tasks.models.reference import ModelReference
from tests.support.small_model import FACTS

EDITS = [
    EditRequest(case_id=prompt, prompt=prompt, target_new="red")
    for prompt, _ in [fact for fact in FACTS if fact[1] != "red"][:6]
]
OTHERS = [prompt for prompt, answer in FACTS[50:60]]


@pytest.fixture(scope="module")
def engine(small_model: Path) -> TransformersEngine:
    return TransformersEngine(ModelReference(str(small_model)), EngineOptions(kind="transformers"))


@pytest.fixture(scope="module")
def edited(engine: TransformersEngine, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Checkpoints by edit count: one on a branch, and two on the main line."""
    config = Grace(site="0.down_proj", radius=1e-3, learning_rate=0.5, num_steps=60)
    folder = tmp_path_factory.mktemp("grace")
    source = Source(str, "small", "0")
    settings = TrajectorySettings(Schedule((1, 4, 6), 2, 0), source, folder)
    loaded = engine.loaded
    return {
        checkpoint.record.edit_count: checkpoint.folder
        for checkpoint in run_trajectory(*loaded, EDITS, config, method=METHOD, settings=settings)
    }


def answers(engine: TransformersEngine, prompts: list[str]) -> list[str]:
    return [each.text.strip() for each in engine.generate(prompts, max_tokens=8, stop=["."])]


def test_edits_are_answered_and_everything_else_as_before(engine: TransformersEngine, edited: dict[int, Path]) -> None:
    prompts, targets = [edit.prompt for edit in EDITS], [edit.target_new for edit in EDITS]
    engine.swap(None)
    before, others = answers(engine, prompts), answers(engine, OTHERS)
    nlls = engine.token_nlls([prompt + " red" for prompt in prompts])
    assert not set(zip(before, targets, strict=True)) & set(zip(targets, targets, strict=True))
    for count, checkpoint in edited.items():
        assert engine.swap(checkpoint).verified
        now = answers(engine, prompts)
        assert now == targets[:count] + before[count:]
        assert answers(engine, OTHERS) == others
        assert engine.token_nlls([prompt + " red" for prompt in prompts]) == nlls, "a text without a prompt"
        singly = [text for prompt in [*prompts, *OTHERS] for text in answers(engine, [prompt])]
        assert singly == [*now, *others], "an answer does not depend on its batch"
    engine.swap(None)
    assert answers(engine, prompts) == before


def test_targets_are_scored_as_they_are_generated(engine: TransformersEngine, edited: dict[int, Path]) -> None:
    pairs = [(edit.prompt, edit.target_new) for edit in EDITS]
    engine.swap(None)
    before = engine.score(pairs)
    engine.swap(edited[4])
    after = engine.score(pairs)
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        if number < 4:
            assert new.greedy_ids == new.target_ids
            assert sum(new.token_nlls) < 0.5 * sum(old.token_nlls)
        else:
            assert new == old


def test_lm_eval_asks_with_the_edits(engine: TransformersEngine, edited: dict[int, Path]) -> None:
    asked = [SimpleNamespace(args=(edit.prompt, " " + edit.target_new)) for edit in EDITS]
    texts = [SimpleNamespace(args=(edit.prompt,)) for edit in EDITS]
    engine.swap(None)
    before = engine.language_model().loglikelihood(asked)
    rolling = engine.language_model().loglikelihood_rolling(texts)
    engine.swap(edited[4])
    model = engine.language_model()
    after = model.loglikelihood(asked)
    assert [greedy for _, greedy in after[:4]] == [True] * 4
    assert after[4:] == before[4:]
    assert model.loglikelihood_rolling(texts) == rolling
    stops = [SimpleNamespace(args=(edit.prompt, {"until": ["."], "max_gen_toks": 6})) for edit in EDITS[:4]]
    assert [text.strip() for text in model.generate_until(stops)] == [edit.target_new for edit in EDITS[:4]]


def test_a_branch_is_not_continued_from(edited: dict[int, Path]) -> None:
    states = {count: read_checkpoint(folder) for count, folder in edited.items()}
    assert states[1].record.branched_from == 0
    assert [len(states[count].state()["radii"]) for count in (1, 4, 6)] == [1, 4, 6]
    assert torch.equal(states[6].state()["values"][:4], states[4].state()["values"])
    assert not any(checkpoint.record.tensors for checkpoint in states.values())


def test_such_a_checkpoint_is_neither_exported_nor_run_by_vllm(edited: dict[int, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="GRACE keeps its edits beside the weights, and only Overedit's transformers"):
        export_checkpoint(edited[4], tmp_path / "out")
    with pytest.raises(ValueError, match=r"engine\.kind: transformers"):
        check_weights_only(read_checkpoint(edited[4]))
    assert not (tmp_path / "out").exists()


CONFIG = {
    "name": "routed",
    "model": "pocket",
    "dataset": {"name": "pocket"},
    "methods": [{"method": "grace", "site": "2.down_proj"}],
    "engine": {"kind": "transformers"},
    "edit_counts": [10],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": {}}, "engine.kind: 'auto' runs the weights alone, and grace keeps its edits beside them"),
        ({"engine": {"kind": "vllm"}}, "engine.kind: 'vllm' runs the weights alone"),
        ({"after": ["quantize_int8"]}, "after: acts on the weights, and grace does not change them"),
        ({"methods": [CONFIG["methods"][0] | {"shards": {"count": 2, "merge": "mean"}}]}, "shards: acts on a change"),  # type: ignore[index]
        ({"methods": [CONFIG["methods"][0] | {"restraint": "rect"}]}, "restraint: acts on a change of the weights"),  # type: ignore[index]
    ],
)
def test_a_run_that_cannot_measure_it_is_refused(change: dict[str, object], message: str) -> None:
    assert BenchmarkConfig.model_validate(CONFIG).methods[0].method == "grace"
    with pytest.raises(ValidationError, match=message.replace(".", r"\.")):
        BenchmarkConfig.model_validate(CONFIG | change)


def test_a_scan_refuses_it() -> None:
    scan = {key: CONFIG[key] for key in ("name", "model", "dataset", "methods")}
    with pytest.raises(ValidationError, match="methods: grace keeps its edits beside the weights, so that perplexity"):
        ScanConfig.model_validate(scan | {"perplexity": {"corpus": "pocket"}})
