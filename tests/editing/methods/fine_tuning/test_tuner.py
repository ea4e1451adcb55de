"""Samples, loss, steps and the frozen prefix that all fine-tuning methods share."""

from __future__ import annotations

import pytest
import torch

from overedit.editing.methods.fine_tuning.tuner import Sample, SiteTuning, encode_samples, tuning
from overedit.editing.requests import EditRequest
from tests.support.teachable_models import (
    DOWN,
    FAMILIES,
    byte_tokenizer,
    plain_losses,
    samples_of,
    snapshot,
    some_requests,
    teachable,
    unchanged,
)


def request(prompt: str, target: str) -> EditRequest:
    return EditRequest(case_id="7", prompt=prompt, target_new=target)


# --- samples ---------------------------------------------------------------------------------------------------------


def test_answer_terms_are_read_one_position_before_each_target_token() -> None:
    tokenizer = byte_tokenizer()
    [sample] = encode_samples(teachable("llama"), tokenizer, [request("ab", "cd")], append_eos=True)
    a, b, c, d, blank = (tokenizer(letter)["input_ids"][0] for letter in ("a", "b", "c", "d", " "))
    assert sample.ids == (a, b, blank, c, d, tokenizer.eos_token_id)
    assert sample.positions == (1, 2, 3, 4)
    assert sample.labels == (blank, c, d, tokenizer.eos_token_id)


def test_a_given_space_is_not_doubled_and_eos_can_be_left_out() -> None:
    tokenizer, model = byte_tokenizer(), teachable("llama")
    [with_blank] = encode_samples(model, tokenizer, [request("ab", " cd")], append_eos=False)
    [without] = encode_samples(model, tokenizer, [request("ab", "cd")], append_eos=False)
    assert with_blank == without
    assert len(with_blank.labels) == 3


def test_last_token_objectives() -> None:
    tokenizer, model = byte_tokenizer(), teachable("llama")
    full = encode_samples(model, tokenizer, [request("ab", "cd")], append_eos=False)[0]
    prompt_last = encode_samples(model, tokenizer, [request("ab", "cd")], append_eos=False, objective="prompt_last")[0]
    target_last = encode_samples(model, tokenizer, [request("ab", "cd")], append_eos=False, objective="target_last")[0]
    assert prompt_last == Sample(full.ids[:2], (1, 1, 1), full.labels)
    assert target_last == Sample(full.ids, (3,), full.labels[-1:])


def test_eos_is_learned_also_where_it_is_the_padding_token() -> None:
    model = teachable("llama")
    requests = some_requests()
    assert encode_samples(model, byte_tokenizer(pad="<|eos|>"), requests, append_eos=True) == [
        Sample(
            tuple(i - 1 if i == 257 else i for i in s.ids),
            s.positions,
            tuple(i - 1 if i == 257 else i for i in s.labels),
        )
        for s in encode_samples(model, byte_tokenizer(), requests, append_eos=True)
    ]


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([], "at least one request"),
        ([request("x" * 70, "y")], "request 7: 73 tokens exceed the model's context of 64"),
    ],
)
def test_what_cannot_be_trained_is_an_error(requests: list[EditRequest], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_samples(teachable("llama"), byte_tokenizer(), requests, append_eos=True)


def test_a_tokenizer_without_eos_cannot_append_it() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="append_eos"):
        encode_samples(teachable("llama"), tokenizer, some_requests(), append_eos=True)


# --- loss and gradient -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("frozen_prefix", [True, False])
def test_loss_is_the_models_own_cross_entropy(family: str, frozen_prefix: bool) -> None:
    model = teachable(family)
    samples = samples_of(model)
    expected = plain_losses(model, samples)
    terms = [len(sample.labels) for sample in samples]
    config = SiteTuning(site="1.down_proj", frozen_prefix=frozen_prefix)
    with tuning(model, samples, config) as tuner:
        by_sample = tuner.step(range(len(samples)), skip_below=1e9)
        by_token = tuner.step(range(len(samples)), average="token", skip_below=1e9)
    assert by_sample == pytest.approx(sum(expected) / len(expected), rel=1e-6)
    assert by_token == pytest.approx(sum(e * n for e, n in zip(expected, terms, strict=True)) / sum(terms), rel=1e-6)
    assert by_sample != pytest.approx(by_token, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_is_autograds_and_reaches_the_site_alone(family: str) -> None:
    model, twin = teachable(family), teachable(family)
    name = DOWN[family]
    sample = samples_of(model)[3]
    ids = torch.tensor([sample.ids])
    labels = ids.clone()
    labels[0, : sample.positions[0] + 1] = -100
    twin(input_ids=ids, labels=labels).loss.backward()
    with tuning(model, [sample], SiteTuning(site="1.down_proj")) as tuner:
        tuner.loss([0], [1 / len(sample.labels)]).backward()
        assert list(tuner.values) == [name]
        found, expected = tuner.values[name].grad, twin.get_parameter(name).grad
        assert float((found - expected).norm() / expected.norm()) < 1e-5
        assert all(parameter.grad is None for parameter in model.parameters())


def test_one_step_is_adams() -> None:
    model, twin = teachable("llama"), teachable("llama")
    samples, name = samples_of(model)[:1], DOWN["llama"]
    weight = twin.get_parameter(name)
    optimizer = torch.optim.Adam([weight], 0.02, weight_decay=0.1)
    labels = torch.tensor([[-100] * (samples[0].positions[0] + 1) + list(samples[0].labels)])
    twin(input_ids=torch.tensor([samples[0].ids]), labels=labels).loss.backward()
    optimizer.step()
    with tuning(model, samples, SiteTuning(site="1.down_proj", learning_rate=0.02, weight_decay=0.1)) as tuner:
        tuner.step([0])
        torch.testing.assert_close(tuner.update()[name].tensor, weight.detach(), rtol=1e-4, atol=1e-5)


def test_a_batch_cut_into_passes_is_the_same_batch() -> None:
    model = teachable("llama")
    samples = samples_of(model, 9)
    results = []
    for tokens in (10_000, 60, 1):
        with tuning(model, samples, SiteTuning(site="1.down_proj", max_tokens_per_pass=tokens)) as tuner:
            losses = [tuner.step(range(9)) for _ in range(3)]
            results.append((losses, tuner.values[DOWN["llama"]].detach()))
    for losses, values in results[1:]:
        assert losses == pytest.approx(results[0][0], abs=5e-6)
        torch.testing.assert_close(values, results[0][1], rtol=1e-3, atol=2e-5)


def test_a_loss_that_is_not_a_number_takes_its_step() -> None:
    model = teachable("llama")
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    with tuning(model, samples_of(model), SiteTuning(site="1.down_proj")) as tuner:
        assert tuner.step([0], skip_below=1e-2) != tuner.step([0], skip_below=1e-2)
        assert not tuner.values[DOWN["llama"]].isfinite().all()


def test_half_precision_models_train_a_float32_copy() -> None:
    model = teachable("llama", dtype=torch.bfloat16)
    name = DOWN["llama"]
    before = model.get_parameter(name).detach().clone()
    with tuning(model, samples_of(model), SiteTuning(site="1.down_proj", learning_rate=1e-5)) as tuner:
        losses = [tuner.step(range(7)) for _ in range(3)]
        assert tuner.values[name].dtype == torch.float32
        assert not torch.equal(tuner.values[name], before.float())  # steps too small for bfloat16 add up
        assert tuner.update()[name].tensor.dtype == torch.bfloat16
    assert losses[0] == pytest.approx(sum(plain_losses(model, samples_of(model))) / 7, abs=0.05)


def test_norm_constraint_is_centred_where_start_was_called() -> None:
    model, name = teachable("llama"), DOWN["llama"]
    config = SiteTuning(site="1.down_proj", learning_rate=0.05)
    with tuning(model, samples_of(model), config, norm_constraint=0.06) as tuner:
        for _ in range(3):
            tuner.step([0])
        moved = tuner.values[name].detach() - model.get_parameter(name).detach()
        assert float(moved.abs().max()) == pytest.approx(0.06, rel=1e-4)
        middle = tuner.values[name].detach().clone()
        tuner.start()
        for _ in range(3):
            tuner.step([1])
        assert float((tuner.values[name].detach() - middle).abs().max()) == pytest.approx(0.06, rel=1e-4)


# --- the model stays as it is ----------------------------------------------------------------------------------------


def test_the_model_is_given_back_as_it_was_also_after_an_error() -> None:
    model = teachable("gpt2")
    model.train()
    model.transformer.h[0].eval()
    model.transformer.wte.weight.requires_grad_(False)
    before = snapshot(model)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    with (
        pytest.raises(RuntimeError, match="stop"),
        tuning(model, samples_of(model), SiteTuning(site="1.layer")) as tuner,
    ):
        tuner.step([0, 1])
        raise RuntimeError("stop")
    assert unchanged(model, before)
    assert modes == [module.training for module in model.modules()]
    assert flags == [parameter.requires_grad for parameter in model.parameters()]
    assert not any("forward" in vars(module) or module._forward_hooks for module in model.modules())
