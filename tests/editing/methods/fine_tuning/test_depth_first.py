"""FT-M and FT-L: one request after the other, each to convergence and once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from overedit.editing.methods.base import EditResult
from overedit.editing.methods.fine_tuning.depth_first import train_depth_first
from overedit.editing.methods.fine_tuning.tuner import Sample, encode_samples, tuning
from overedit.editing.methods.ft_l import FtL, ft_l
from overedit.editing.methods.ft_m import FtM, ft_m
from overedit.editing.model.weights import applied
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

SITE = "1.down_proj"


def run_m(model: PreTrainedModel, requests: list[EditRequest], **settings: Any) -> EditResult:
    return ft_m(model, byte_tokenizer(), requests, FtM(**({"site": SITE} | settings)), {})


def run_l(model: PreTrainedModel, requests: list[EditRequest], **settings: Any) -> EditResult:
    return ft_l(model, byte_tokenizer(), requests, FtL(**({"site": SITE} | settings)), {})


def hand_loop(
    model: PreTrainedModel, weight: torch.nn.Parameter, samples: list[Sample], *, steps: int, rate: float, stop: float
) -> list[int]:
    """Plain steps on one sample after the other; the number of steps of each."""
    taken = []
    for sample in samples:
        optimizer = torch.optim.Adam([weight], rate)
        taken.append(0)
        for _ in range(steps):
            optimizer.zero_grad()
            logits = model(torch.tensor([sample.ids])).logits[0, list(sample.positions)]
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(sample.labels))
            if loss.item() < stop:
                break
            loss.backward()
            optimizer.step()
            taken[-1] += 1
    return taken


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("objective", ["answer", "prompt_last", "target_last"])
def test_weights_are_those_of_a_plain_loop(family: str, objective: Any) -> None:
    model, twin, requests = teachable(family), teachable(family), some_requests(3)
    settings: dict[str, Any] = {"max_steps": 4, "learning_rate": 2e-3, "stop_below": 1.5}
    if objective == "answer":
        result = run_m(model, requests, **settings)
    else:
        result = run_l(model, requests, **settings, objective=objective)
    samples = encode_samples(twin, byte_tokenizer(), requests, append_eos=True, objective=objective)
    name = DOWN[family]
    taken = hand_loop(twin, twin.get_parameter(name), samples, steps=4, rate=2e-3, stop=1.5)
    torch.testing.assert_close(result.update[name].tensor, twin.get_parameter(name).detach(), rtol=1e-3, atol=3e-5)
    assert int(result.log["steps"]) - int(result.log["converged"]) == sum(taken)


@pytest.mark.parametrize("family", FAMILIES)
def test_ft_m_reaches_the_whole_target(family: str) -> None:
    model, tokenizer, [request] = teachable(family), byte_tokenizer(), some_requests(1)
    result = run_m(model, [request], learning_rate=2e-2, max_steps=80, stop_below=0.1)
    assert result.log["converged"] == 1
    assert float(result.log["last_loss"]) < 0.1 < float(result.log["first_loss"])
    with applied(model, result.update):
        assert greedy(model, tokenizer, request, 20) == " copper<|eos|>"


def test_ft_l_makes_every_target_token_likely_right_after_the_prompt() -> None:
    """Three different tokens share the probability of one position: a loss of log 3, and no answer to read."""
    model, tokenizer = teachable("llama"), byte_tokenizer()
    request = EditRequest(case_id="0", prompt="item 0 is", target_new="ab")
    result = run_l(model, [request], learning_rate=2e-2, max_steps=80, append_eos=False)
    assert result.log["converged"] == 0
    assert 1.0986 < float(result.log["last_loss"]) < 1.25
    with applied(model, result.update), torch.no_grad():
        after = model(torch.tensor([tokenizer(request.prompt)["input_ids"]])).logits[0, -1].softmax(-1)
    target = tokenizer(" ab")["input_ids"]
    assert after[target].tolist() == pytest.approx([1 / 3] * 3, abs=0.1)


def test_the_two_losses_agree_on_a_target_of_one_token() -> None:
    model, prompt = teachable("llama"), (5, 6, 7)
    samples = [Sample((*prompt, 9), (2,), (9,)), Sample(prompt, (2,), (9,))]
    trained = []
    for sample in samples:
        with tuning(model, [sample], FtM(site=SITE)) as tuner:
            train_depth_first(tuner, 1, max_steps=5, stop_below=0.0)
            trained.append(tuner.values[DOWN["llama"]].detach())
    torch.testing.assert_close(trained[0], trained[1], rtol=1e-4, atol=1e-6)


def test_ft_l_can_ask_for_the_targets_last_token_alone() -> None:
    model, tokenizer, [request] = teachable("llama"), byte_tokenizer(), some_requests(1)
    settings: dict[str, Any] = {"objective": "target_last", "append_eos": False}
    result = run_l(model, [request], learning_rate=2e-2, max_steps=80, **settings)
    assert result.log["converged"] == 1
    ids = tokenizer(f"{request.prompt} {request.target_new}")["input_ids"]
    with applied(model, result.update), torch.no_grad():
        likely = model(torch.tensor([ids])).logits[0].argmax(-1).tolist()
    assert likely[-2] == ids[-1]
    assert likely[-8:-2] != ids[-7:-1]  # the tokens before were not trained


@pytest.mark.parametrize("bound", [1e-3, 5e-3])
def test_norm_constraint_holds_for_every_request(bound: float) -> None:
    model, name = teachable("llama"), DOWN["llama"]
    before = model.get_parameter(name).detach().clone()
    one = run_l(model, some_requests(1), norm_constraint=bound, learning_rate=1e-2).update[name].tensor
    assert float((one - before).abs().max()) == pytest.approx(bound, rel=1e-3)
    three = run_l(model, some_requests(3), norm_constraint=bound, learning_rate=1e-2).update[name].tensor
    assert bound < float((three - before).abs().max()) <= 3.001 * bound


def test_requests_are_edited_one_after_the_other() -> None:
    """Two requests in one call are the first, then the second from where the first ended, with a fresh optimizer."""
    model, requests, name = teachable("llama"), some_requests(2), DOWN["llama"]
    together = run_m(model, requests, max_steps=6)
    first = run_m(model, requests[:1], max_steps=6)
    with applied(model, first.update):
        second = run_m(model, requests[1:], max_steps=6)
    torch.testing.assert_close(together.update[name].tensor, second.update[name].tensor, rtol=1e-5, atol=1e-6)


def test_each_request_stops_at_its_threshold_or_at_the_last_step() -> None:
    model = teachable("llama")
    config = FtM(site=SITE, learning_rate=2e-2)
    samples = encode_samples(model, byte_tokenizer(), some_requests(3), append_eos=True)
    told: list[tuple[int, int]] = []
    with tuning(model, samples, config) as tuner:
        done = train_depth_first(
            tuner, 3, max_steps=30, stop_below=0.8, progress=lambda done, total: told.append((done, total))
        )
    for losses in done.losses:
        assert all(loss >= 0.8 for loss in losses[:-1])
        assert losses[-1] < 0.8 or len(losses) == 30
    assert done.reached == sum(losses[-1] < 0.8 for losses in done.losses) > 0
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("run", [run_m, run_l])
def test_the_model_is_bit_identical_and_two_calls_agree(run: Any) -> None:
    model = teachable("gpt2")
    before = snapshot(model)
    results = [run(model, some_requests(3), max_steps=3, site="1.mlp") for _ in range(2)]
    assert unchanged(model, before)
    assert results[0].update.keys() == results[1].update.keys()
    for name, change in results[0].update.items():
        assert torch.equal(change.tensor, results[1].update[name].tensor)
        assert not torch.equal(change.tensor, before[name])
    assert results[0].state == {}
