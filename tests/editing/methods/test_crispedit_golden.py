"""CrispEdit against the numbers of the published formulas: factors, masks, projections, one turn, and two turns."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from overedit.editing.methods.base import CovarianceOptions, State
from overedit.editing.methods.crispedit import CrispEdit, crispedit
from overedit.editing.methods.fine_tuning import breadth_first
from overedit.editing.methods.fine_tuning.projection import FreeDirections
from overedit.editing.methods.fine_tuning.tuner import encode_samples, tuning
from overedit.editing.methods.locate_then_edit.covariance import SecondMoment
from overedit.editing.methods.locate_then_edit.curvature import (
    curvature_of_texts,
    earlier_edits,
    factor_names,
    merged,
)
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.weights import Replacement, applied, apply_update, read_tensors
from overedit.editing.requests import EditRequest
from tests.support.golden_cases import relative
from tests.support.triangles import symmetric

FACTORS, MASKED, CHANGE = 2e-5, 2e-4, 6e-3
"""Tolerances of the relative error: factors, projected gradients and moments, and changes of the weights."""


class Case:
    """The model, the recorded numbers, and what the methods are given."""

    def __init__(self, folder: Path) -> None:
        self.content: dict[str, Any] = json.loads((folder / "crispedit" / "case.json").read_text())
        self.tensors = load_file(folder / "crispedit" / "tensors.safetensors")
        self.hparams = self.content["hparams"]
        self.model = AutoModelForCausalLM.from_pretrained(folder / "models" / "tiny-llama")
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "models" / "tiny-llama")
        self.sites = tuple(f"{layer}.down_proj" for layer in self.hparams["layers"])
        self.modules = {site: Anatomy.of(self.model).site_module(site) for site in self.sites}
        self.names = [f"{module}.weight" for module in self.modules.values()]
        self.pristine = read_tensors(self.model, self.names)

    @cached_property
    def covariance(self) -> dict[str, SecondMoment]:
        names = [name for site in self.sites for name in factor_names(site)]
        length = self.hparams["maxlen"]
        return curvature_of_texts(self.model, self.tokenizer, self.content["texts"], names, max_length=length)

    def config(self, **more: Any) -> CrispEdit:
        return CrispEdit(
            sites=self.sites,
            energy=self.hparams["train_energy"],
            learning_rate=self.hparams["lr"],
            batch_size=self.hparams["bs"],
            append_eos=False,
            covariance=CovarianceOptions(corpus="none"),
            **more,
        )

    def free(self, site: str, energy: float, state: State | None = None) -> FreeDirections:
        a, b = (merged(self.covariance[name], earlier_edits(state or {}, name)) for name in factor_names(site))
        return FreeDirections.of(a.matrix_II, b.matrix_II, energy, in_out=False)

    def change(self, name: str) -> torch.Tensor:
        return self.model.get_parameter(name).detach() - self.pristine[name]


@pytest.fixture
def case(golden: Path) -> Case:
    return Case(golden)


def asked(rows: list[dict[str, Any]]) -> list[EditRequest]:
    return [EditRequest(case_id=str(row["row"]), prompt=row["prompt"], target_new=row["target_new"]) for row in rows]


def test_factors_masks_and_projections(case: Case) -> None:
    for site, module in case.modules.items():
        for name, recorded in zip(factor_names(site), ("A", "B"), strict=True):
            assert case.covariance[name].num_tokens == case.content["tokens"]
            assert relative(case.covariance[name].matrix_II, symmetric(case.tensors[f"{module}.{recorded}"])) < FACTORS
        for energy in case.hparams["energy"]:
            free = case.free(site, energy)
            assert torch.equal(free.free_OI.T, case.tensors[f"{module}.energy{energy}.mask"].bool())
            assert free.num_frozen == case.content["frozen"][f"{module}.energy{energy}"]
            projected = free.project(case.tensors[f"{module}.given_gradient"])
            assert relative(projected, case.tensors[f"{module}.energy{energy}.projected_gradient"]) < MASKED


def test_gradients_of_several_sites_in_one_step(case: Case) -> None:
    by_row = {row["row"]: row for row in case.content["requests"]}
    [first, *_] = case.content["plain"]["batch_order"][0]
    samples = encode_samples(case.model, case.tokenizer, asked([by_row[number] for number in first]), append_eos=False)
    with tuning(case.model, samples, case.config()) as tuner:
        tuner.step(range(4), average="token")
        for module, value in zip(case.modules.values(), tuner.values.values(), strict=True):
            assert value.grad is not None
            assert relative(value.grad, case.tensors[f"plain.step0.{module}.gradient"]) < 3e-5


def test_one_turn(case: Case) -> None:
    """The recorded order is that of Python's generator with the recorded seed, as here."""
    requests, seed = asked(case.content["requests"]), case.hparams["seed"]
    config = case.config(epochs=case.hparams["steps"])
    result = crispedit(case.model, case.tokenizer, requests, config, {}, covariance=case.covariance, seed=seed)
    losses = case.content["plain"]["losses"][0]
    assert result.log["first_epoch_loss"] == pytest.approx(sum(losses) / len(losses), abs=2e-5)
    apply_update(case.model, result.update)
    for site, module in case.modules.items():
        change = case.change(f"{module}.weight")
        assert relative(change, case.tensors[f"plain.step2.{module}.delta"]) < CHANGE
        free = case.free(site, config.energy)
        coordinates_OI = free.coordinates(change)
        share = float(coordinates_OI.masked_fill(free.free_OI, 0).norm() / coordinates_OI.norm())
        recorded = case.content["plain"]["share_of_final_delta_norm_in_frozen_directions"][module]
        assert share == pytest.approx(recorded, abs=1e-4)
        assert 0.2 < result.log[f"{site}/leak"] < 0.6


def test_two_turns(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded run has one order for both epochs of a turn."""

    class InOrder:
        def __init__(self, seed: int) -> None:
            self.shuffle = lambda order: None

    monkeypatch.setattr(breadth_first.random, "Random", InOrder)
    recorded, size = case.content["sequential"], case.hparams["chunk"]
    by_row = {row["row"]: row for row in recorded["requests"]}
    requests = asked([by_row[number] for number in recorded["order_after_one_shuffle"]])
    config = case.config(epochs=case.hparams["seq_steps"])
    state: State = {}
    tokens = 0
    for turn, chunk in enumerate(recorded["chunks"]):
        some = requests[turn * size : (turn + 1) * size]
        earlier = state
        result = crispedit(case.model, case.tokenizer, some, config, state, covariance=case.covariance)
        state, tokens = result.state, tokens + chunk["edit_tokens"]
        losses = recorded["losses"][turn]
        assert result.log["last_epoch_loss"] == pytest.approx(sum(losses[2:]) / 2, abs=2e-5)
        apply_update(case.model, result.update)
        assert (int(state["edit_tokens"]), int(state["steps"])) == (tokens, 4 * (turn + 1))
        for site, module in case.modules.items():
            at = f"seq.chunk{turn}.{module}"
            assert relative(case.change(f"{module}.weight"), case.tensors[f"{at}.delta"]) < CHANGE
            for name, letter in zip(factor_names(site), "AB", strict=True):
                own = state[name].double() * tokens
                if earlier:
                    own -= earlier[name].double() * int(earlier["edit_tokens"])
                assert relative(own / chunk["edit_tokens"], symmetric(case.tensors[f"{at}.edit_{letter}"])) < FACTORS
            free = case.free(site, config.energy, state)
            assert torch.equal(free.free_OI.T, case.tensors[f"{at}.mask_after"].bool())
            assert free.num_frozen == chunk["frozen"][module]
            after = free.project(state[f"{site}.first_moment"])
            assert relative(after, case.tensors[f"{at}.first_moment_after"]) < MASKED
    assert all(isinstance(change, Replacement) for change in result.update.values())


def test_the_loss_on_the_text_changes_less_with_projected_steps(case: Case) -> None:
    rows = [torch.tensor([ids[: case.hparams["maxlen"]]]) for ids in case.tokenizer(case.content["texts"])["input_ids"]]

    def loss() -> float:
        with torch.no_grad():
            return float(sum(case.model(input_ids=row, labels=row).loss for row in rows)) / len(rows)

    def change(energy: float, project: str) -> float:
        config = case.config(epochs=3, project=project).model_copy(update={"energy": energy})
        requests = asked(case.content["requests"])
        result = crispedit(case.model, case.tokenizer, requests, config, {}, covariance=case.covariance)
        with applied(case.model, result.update):
            return abs(loss() - before)

    before = loss()
    free, by_gradient, by_step = change(0.0, "gradient"), change(0.8, "gradient"), change(0.8, "step")
    assert by_step < by_gradient / 1.5 < free / 3
