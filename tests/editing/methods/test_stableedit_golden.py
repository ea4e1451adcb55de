"""StableEdit against the numbers of the published implementation, from the first turn to the last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from overedit.editing.methods.base import EditResult, State
from overedit.editing.methods.gradients.turn import Turn, loss_batches, shape_of, trace_turn
from overedit.editing.methods.gradients.whitening import GradientMoments, gradient_moments
from overedit.editing.methods.stableedit import StableEdit, stableedit, target_rows
from overedit.editing.model.tokenization import encode_requests
from overedit.editing.model.weights import apply_update
from overedit.editing.requests import EditRequest
from tests.support.triangles import symmetric
from tests.support.updates import dense


class Step(NamedTuple):
    """A turn of the replay: what was traced, the moments with it, the result, and the change of each weight so far."""

    requests: list[EditRequest]
    turn: Turn
    moments: dict[str, GradientMoments]
    result: EditResult
    deltas: dict[str, torch.Tensor]


class Replay(NamedTuple):
    """The whole trajectory, each turn on the weights that the ones before have left."""

    content: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    model: PreTrainedModel
    tokenizer: Any
    config: StableEdit
    steps: list[Step]


@pytest.fixture(scope="module")
def replay(golden: Path) -> Replay:
    content = json.loads((golden / "stableedit" / "case.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(golden / "models" / content["model"])
    tokenizer = AutoTokenizer.from_pretrained(golden / "models" / content["model"])
    hparams, size = content["hparams"], content["hparams"]["n_edits"]
    rows = content["warmup_requests"] + content["requests"]
    requests = [EditRequest(case_id=str(row["row"]), prompt=row["src"], target_new=row["ans"]) for row in rows]
    config = StableEdit(
        sites=tuple(f"{name.split('.')[2]}.{name.split('.')[-1]}" for name in hparams["edit_modules"]),
        learning_rate=hparams["lr"],
        ridge=hparams["alpha"],
        loss_batch_size=hparams["batch_size"],
        warm_up=hparams["warmup_turns"] * size,
        compat="stableedit-6ea8eae",
    )
    weights = {name: model.get_submodule(name).weight for name in hparams["edit_modules"]}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    steps: list[Step] = []
    state: State = {}
    for first in range(0, len(requests), size):
        some = requests[first : first + size]
        turn = trace_turn(model, tokenizer, some, config, progress=lambda done, total: None)
        result = stableedit(model, tokenizer, some, config, state)
        apply_update(model, result.update)
        deltas = {name: weight.detach() - before[name] for name, weight in weights.items()}
        steps.append(Step(some, turn, gradient_moments(turn.rows.modules, state), result, deltas))
        state = result.state
    tensors = load_file(golden / "stableedit" / "tensors.safetensors")
    return Replay(content, tensors, model, tokenizer, config, steps)


def relative(seen: torch.Tensor, expected: torch.Tensor) -> float:
    return float((seen.double() - expected.double()).norm() / expected.double().norm())


def published_name(shape: str) -> str:
    return "({}, {})".format(*shape.split("x"))


def test_golden_keys_and_gradients(replay: Replay) -> None:
    size = replay.content["hparams"]["n_edits"]
    batches = replay.content["warmup_batch_rows"] + replay.content["batch_rows"]
    for number, step in enumerate(replay.steps):
        pairs = encode_requests(replay.model, replay.tokenizer, step.requests, join="ids")
        assert loss_batches(pairs, replay.config) == [[i % size for i in batch] for batch in batches[number]]
        assert step.turn.chunks == replay.content["steps"][number]["rows_per_batch"]
        for name, rows in step.turn.rows.modules.items():
            assert relative(rows.keys, replay.tensors[f"step{number}.{name}.keys"]) < 1e-4
            assert relative(rows.gradients, replay.tensors[f"step{number}.{name}.value_grads"]) < 1e-4


def test_golden_moments_and_whitening(replay: Replay) -> None:
    """The smaller shape has more than O + 1 rows from step 2 on, the other never; the warm-up is step 0."""
    recorded: dict[str, list[torch.Tensor]] = {}
    for number, step in enumerate(replay.steps):
        kind = replay.content["steps"][number]["kind"]
        assert step.result.log["warm_up"] == int(kind == "warmup")
        for name, rows in step.turn.rows.modules.items():
            recorded.setdefault(shape_of(rows), []).append(replay.tensors[f"step{number}.{name}.value_grads"].double())
        for shape, about in replay.content["steps"][number]["normaliser"].items():
            name = "x".join(shape.strip("()").split(", "))
            state, prefix = step.result.state, f"step{number}.norm.{shape}"
            assert int(state[f"{name}.count"]) == about["n"]
            assert relative(state[f"{name}.mean"], replay.tensors[f"{prefix}.mean"]) < 1e-4
            assert relative(state[f"{name}.m2"], replay.tensors[f"{prefix}.var"]) < 1e-4
            gradients_RO = torch.cat(recorded[name])
            deviations_RO = gradients_RO - gradients_RO.mean(0)
            assert relative(state[f"{name}.scatter"], deviations_RO.T @ deviations_RO) < 1e-4
            assert step.result.log[f"whitened/{name}"] == int(about["whitening"])
            assert step.result.log[f"clamped/{name}"] == about.get("eigenvalues_clamped", 0)
            if about["whitening"]:
                whitening = step.moments[name].whitening()
                assert whitening is not None
                assert relative(whitening.matrix_OO, symmetric(replay.tensors[f"{prefix}.whitening"])) < 5e-4


def test_golden_targets_and_weights(replay: Replay) -> None:
    """A relative error of 5e-5 is the epsilon in a standard deviation, 4e-6 is rounding."""
    for number, step in enumerate(replay.steps):
        for name, rows in step.turn.rows.modules.items():
            shape, prefix = shape_of(rows), f"step{number}.{name}"
            whitened = replay.content["steps"][number]["normaliser"][published_name(shape)]["whitening"]
            whitening = step.moments[shape].whitening() if whitened else None
            targets_RO = target_rows(rows, step.moments[shape], whitening, replay.config)
            assert relative(targets_RO, replay.tensors[f"{prefix}.values"]) < 3e-4
            assert relative(dense(step.result.update[f"{name}.weight"]).T, replay.tensors[f"{prefix}.shift"]) < 3e-4
            past = [replay.tensors[f"step{i}.{name}.shift"].T for i in range(number + 1)]
            assert relative(step.deltas[name], torch.stack(past).sum(0)) < 3e-4
    for name, delta in replay.steps[-1].deltas.items():
        assert relative(delta, replay.tensors[f"final.{name}.delta"]) < 3e-4
