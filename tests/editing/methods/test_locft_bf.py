"""LocFT-BF: the published numbers, the epochs, and that it learns."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from overedit.editing.methods.base import EditResult
from overedit.editing.methods.fine_tuning.breadth_first import train_breadth_first
from overedit.editing.methods.fine_tuning.tuner import encode_samples, tuning
from overedit.editing.methods.locft_bf import PRESETS, LocftBf, locft_bf
from overedit.editing.model.weights import Replacement, applied
from overedit.editing.requests import EditRequest
from tests.support.teachable_models import (
    DOWN,
    FAMILIES,
    byte_tokenizer,
    greedy,
    snapshot,
    some_requests,
    teachable,
    unchanged,
)

SMALL: dict[str, Any] = {"site": "1.down_proj", "batch_size": 3, "epochs": 3}


def edit(model: PreTrainedModel, *, requests: int = 7, seed: int = 0, **settings: Any) -> EditResult:
    return locft_bf(model, byte_tokenizer(), some_requests(requests), LocftBf(**(SMALL | settings)), {}, seed=seed)


# --- the published implementation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen_prefix", [True, False])
def test_batches_losses_and_weights_are_the_published_implementations(golden: Path, frozen_prefix: bool) -> None:
    case = json.loads((golden / "locft_bf" / "case.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(golden / "models" / "tiny-llama").eval()
    tokenizer = AutoTokenizer.from_pretrained(golden / "models" / "tiny-llama")
    requests = [EditRequest(case_id=str(i), **request) for i, request in enumerate(case["requests"])]
    hparams, [name] = case["hparams"], case["edited_tensors"]
    config = LocftBf(
        site="2.down_proj",
        learning_rate=hparams["lr"],
        weight_decay=hparams["weight_decay"],
        batch_size=hparams["batch_size"],
        epochs=hparams["epochs"],
        skip_batch_below=hparams["skip_batch_below"],
        stop_epoch_below=hparams["stop_epoch_mean_below"],
        frozen_prefix=frozen_prefix,
    )
    samples = encode_samples(model, tokenizer, requests, append_eos=True)
    with tuning(model, samples, config) as tuner:
        done = train_breadth_first(tuner, len(samples), config.order, seed=case["python_random_seed"])
        trained = tuner.update()[name].tensor
    assert done.batches == case["batch_order"]
    for losses, expected in zip(done.losses, case["step_losses"], strict=True):
        assert losses == pytest.approx(expected, abs=2e-5)
    assert done.epoch_means == pytest.approx(case["epoch_mean_losses"], abs=2e-5)
    expected_delta = load_file(golden / "locft_bf" / "tensors.safetensors")[f"{name}.delta"]
    delta = trained - model.get_parameter(name).detach()
    assert float((delta - expected_delta).norm() / expected_delta.norm()) < 1e-3
    result = locft_bf(model, tokenizer, requests, config, {}, seed=case["python_random_seed"])
    assert torch.equal(result.update[name].tensor, trained)


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_those_of_a_plain_loop(family: str) -> None:
    """Seven requests in batches of three for two epochs, by the model's own loss and Adam."""
    model, twin = teachable(family), teachable(family)
    samples = encode_samples(model, byte_tokenizer(), some_requests(), append_eos=True)
    weight = twin.get_parameter(DOWN[family])
    optimizer = torch.optim.Adam([weight], 1e-3)
    order, generator, first = list(range(7)), random.Random(5), []
    for _ in range(2):
        generator.shuffle(order)
        for start in (0, 3, 6):
            optimizer.zero_grad()
            losses = []
            for sample in (samples[n] for n in order[start : start + 3]):
                labels = torch.tensor([[-100] * (sample.positions[0] + 1) + list(sample.labels)])
                losses.append(twin(input_ids=torch.tensor([sample.ids]), labels=labels).loss)
            loss = torch.stack(losses).mean()
            loss.backward()
            optimizer.step()
            first.append(loss.item())
    result = edit(model, seed=5, epochs=2, learning_rate=1e-3)
    torch.testing.assert_close(result.update[DOWN[family]].tensor, weight.detach(), rtol=1e-3, atol=2e-5)
    expected = [(sum(3 * x for x in first[i : i + 2]) + first[i + 2]) / 7 for i in (0, 3)]
    assert json.loads(str(result.log["epoch_losses"])) == pytest.approx(expected, abs=1e-5)


# --- epochs ----------------------------------------------------------------------------------------------------------


def test_every_epoch_takes_every_request_once_in_an_order_of_its_own() -> None:
    model = teachable("llama")
    config = LocftBf(**SMALL)
    samples = encode_samples(model, byte_tokenizer(), some_requests(), append_eos=True)
    with tuning(model, samples, config) as tuner:
        orders = [train_breadth_first(tuner, 7, config.order, seed=seed).batches for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    for epoch in orders[0]:
        assert [len(batch) for batch in epoch] == [3, 3, 1]
        assert sorted(n for batch in epoch for n in batch) == list(range(7))
    assert len({str(epoch) for epoch in orders[0]}) == 3


def test_two_calls_agree_bit_for_bit_and_the_seed_matters() -> None:
    model = teachable("llama")
    results = [edit(model, seed=seed).update[DOWN["llama"]].tensor for seed in (1, 1, 2)]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("site", ["1.down_proj", "1.layer", "1.attention"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_bit_identical_on_return(family: str, site: str) -> None:
    model = teachable(family)
    before, state = snapshot(model), torch.get_rng_state()
    result = edit(model, site=site)
    assert unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert result.state == {}
    assert all(isinstance(change, Replacement) for change in result.update.values())
    assert all(not torch.equal(change.tensor, before[name]) for name, change in result.update.items())


def test_a_batch_below_the_threshold_takes_no_step() -> None:
    model = teachable("llama")
    name = DOWN["llama"]
    result = edit(model, skip_batch_below=1e6, stop_epoch_below=0)
    assert torch.equal(result.update[name].tensor, model.get_parameter(name).detach())
    assert (result.log["steps"], result.log["skipped_steps"], result.log["epochs"]) == (9, 9, 3)
    assert edit(model).log["skipped_steps"] == 0


def test_training_stops_after_an_epoch_below_the_threshold() -> None:
    told: list[tuple[int, int]] = []
    config = LocftBf(**SMALL, stop_epoch_below=1e6)
    result = locft_bf(
        teachable("llama"),
        byte_tokenizer(),
        some_requests(),
        config,
        {},
        progress=lambda done, total: told.append((done, total)),
    )
    assert (result.log["epochs"], result.log["steps"]) == (1, 3)
    assert told == [(1, 9), (2, 9), (3, 9), (9, 9)]


def test_averages_over_samples_and_tokens_differ() -> None:
    model = teachable("llama")
    by_sample, by_token = edit(model), edit(model, loss_average="token")
    assert by_sample.log["first_epoch_loss"] != pytest.approx(by_token.log["first_epoch_loss"], abs=1e-3)
    name = DOWN["llama"]
    assert not torch.equal(by_sample.update[name].tensor, by_token.update[name].tensor)


# --- what it is for --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "site", "rate"), [*((family, "1.down_proj", 0.02) for family in FAMILIES), ("llama", "1.layer", 0.005)]
)
def test_all_targets_are_learned_to_their_end(family: str, site: str, rate: float) -> None:
    model, tokenizer, requests = teachable(family), byte_tokenizer(), some_requests(4)
    config = LocftBf(site=site, learning_rate=rate, batch_size=2, epochs=80)
    result = locft_bf(model, tokenizer, requests, config, {})
    assert float(result.log["last_epoch_loss"]) < 0.1 * float(result.log["first_epoch_loss"])
    with applied(model, result.update):
        answers = [greedy(model, tokenizer, request, 20) for request in requests]
    assert answers == [f" {request.target_new}<|eos|>" for request in requests]


def test_settings() -> None:
    assert (PRESETS["mistralai/Mistral-7B-v0.1"].site, PRESETS["mistralai/Mistral-7B-v0.1"].learning_rate) == (
        "23.layer",
        5e-5,
    )
    assert LocftBf() == PRESETS["Qwen/Qwen2.5-7B-Instruct"]
    assert (LocftBf().batch_size, LocftBf().epochs, LocftBf().learning_rate) == (100, 25, 5e-4)
    with pytest.raises(ValidationError, match="batchsize"):
        LocftBf(batchsize=3)
    with pytest.raises(ValueError, match="layer 9 does not exist: the model has layers 0 to 2"):
        edit(teachable("llama"), site="9.down_proj")
