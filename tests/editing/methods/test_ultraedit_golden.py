"""UltraEdit against the numbers of the published implementation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from overedit.editing.methods.base import State
from overedit.editing.methods.gradients.answer_gradients import trace_answers
from overedit.editing.methods.gradients.turn import loss_batches
from overedit.editing.methods.ultraedit import UltraEdit, ultraedit
from overedit.editing.model.tokenization import encode_pairs, encode_requests
from overedit.editing.model.weights import Delta, apply_update
from overedit.editing.requests import EditRequest
from tests.support.oracles import IGNORED, pad_pairs
from tests.support.updates import dense


class Case:
    """The case, its tensors, its model, and the requests."""

    def __init__(self, folder: Path) -> None:
        self.content = json.loads((folder / "ultraedit" / "case.json").read_text())
        self.tensors = load_file(folder / "ultraedit" / "tensors.safetensors")
        self.model = AutoModelForCausalLM.from_pretrained(folder / "models" / self.content["model"])
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "models" / self.content["model"])
        self.requests = [
            EditRequest(case_id=str(i), prompt=row["src"], target_new=row["ans"])
            for i, row in enumerate(self.content["requests"])
        ]
        self.modules = self.content["hparams"]["edit_modules"]
        sites = tuple(f"{name.split('.')[2]}.{name.split('.')[-1]}" for name in self.modules)
        self.config = UltraEdit(sites=sites, learning_rate=self.content["hparams"]["lr"], compat="ultraedit-0beb222")

    def turn(self, number: int) -> list[EditRequest]:
        size = self.content["hparams"]["n_edits"]
        return self.requests[number * size : (number + 1) * size]

    def change(self, name: str, turn: int) -> torch.Tensor:
        """Of a module's weight up to the end of a turn: the sum of the turns' updates."""
        return torch.stack([self.tensors[f"turn{past}.{name}.shift"].T for past in range(turn + 1)]).sum(0)


@pytest.fixture
def case(golden: Path) -> Case:
    return Case(golden)


def relative(seen: torch.Tensor, expected: torch.Tensor) -> float:
    return float((seen.detach().double() - expected.double()).norm() / expected.double().norm())


def test_golden_weights_and_statistics(case: Case) -> None:
    before = {name: parameter.detach().clone() for name, parameter in case.model.named_parameters()}
    state: State = {}
    for turn in range(case.content["hparams"]["num_seq"]):
        result = ultraedit(case.model, case.tokenizer, case.turn(turn), case.config, state)
        state = result.state
        statistics = f"turn{turn}.norm.(64, 176)"
        assert int(state["64x176.count"]) == int(case.tensors[f"{statistics}.n"])
        assert relative(state["64x176.mean"], case.tensors[f"{statistics}.mean"]) < 1e-5
        assert relative(state["64x176.m2"], case.tensors[f"{statistics}.var"]) < 1e-5
        std = (state["64x176.m2"] / (int(state["64x176.count"]) - 1)).sqrt()
        assert relative(std, case.tensors[f"{statistics}.std"]) < 1e-5
        for name in case.modules:
            shift = dense(result.update[f"{name}.weight"]).T
            assert relative(shift, case.tensors[f"turn{turn}.{name}.shift"]) < 3e-4
        apply_update(case.model, result.update)
        for name in case.modules:
            delta = case.model.get_submodule(name).weight - before[f"{name}.weight"]
            assert relative(delta, case.change(name, turn)) < 3e-4
    for name in case.modules:
        delta = case.model.get_submodule(name).weight - before[f"{name}.weight"]
        assert relative(delta, case.tensors[f"final.{name}.delta"]) < 3e-4


def test_golden_keys_and_gradients(case: Case) -> None:
    """Of each turn, on the model that the turns before have left."""
    for turn in range(case.content["hparams"]["num_seq"]):
        pairs = encode_requests(case.model, case.tokenizer, case.turn(turn), join="ids")
        batches = loss_batches(pairs, case.config)
        first = turn * case.content["hparams"]["n_edits"]
        assert [[first + i for i in batch] for batch in batches] == case.content["batch_rows"]["edit_tuples"][turn]
        tokens = [sum(len(pairs[i].target) for i in batch) for batch in batches]
        rows = trace_answers(
            case.model,
            [pairs[i] for batch in batches for i in batch],
            case.modules,
            [1 / count for batch, count in zip(batches, tokens, strict=True) for _ in batch],
            max_tokens_per_pass=8192,
            pack_tokens=32,
        )
        for name in case.modules:
            assert tokens == case.content["turns"][turn]["modules"][name]["rows_per_batch"]
            assert relative(rows.modules[name].keys, case.tensors[f"turn{turn}.{name}.keys"]) < 1e-5
            assert relative(rows.modules[name].gradients, case.tensors[f"turn{turn}.{name}.value_grads"]) < 5e-5
        for name in case.modules:
            shift = case.tensors[f"turn{turn}.{name}.shift"]
            apply_update(case.model, {f"{name}.weight": Delta(shift.T)})


def test_golden_scores(case: Case) -> None:
    """Teacher-forced token accuracy before and after; the reference's locality is accuracy on the gold answer."""
    rows = case.content["requests"]
    asked = {
        "ES": [(row["src"], row["ans"]) for row in rows],
        "GS": [(row["rephrase"], row["ans"]) for row in rows],
        "LS": [(row["loc"] + case.content["locality_suffix"], row["loc_ans"]) for row in rows],
    }

    def scores() -> dict[str, float]:
        return {kind: accuracy(case, pairs) for kind, pairs in asked.items()}

    assert scores() == pytest.approx(case.content["pre_edit_scores"], abs=1e-6)
    state: State = {}
    for turn in range(case.content["hparams"]["num_seq"]):
        result = ultraedit(case.model, case.tokenizer, case.turn(turn), case.config, state)
        state = result.state
        apply_update(case.model, result.update)
    assert scores() == pytest.approx(case.content["final_scores"], abs=1e-6)


def accuracy(case: Case, texts: list[tuple[str, str]]) -> float:
    """Share of answer tokens that the model would put itself, per sample, then the mean over samples."""
    batch = pad_pairs(encode_pairs(case.tokenizer, texts, join="ids"), pad_id=0)
    with torch.no_grad():
        logits = case.model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT).logits
    asked = batch.labels_BT != IGNORED
    right = (logits.argmax(-1) == batch.labels_BT) & asked
    return float((right.sum(1) / asked.sum(1)).mean())
