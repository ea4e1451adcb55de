"""Quantization, merging and further training, against what their equations say."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from overedit.editing.durability.linear_layers import linear_weights
from overedit.editing.durability.merging import merged
from overedit.editing.durability.plain_text import PlainTextTuning, tune_on_text
from overedit.editing.durability.quantization import quantized_weights, rounded
from overedit.editing.model.anatomy import stores_in_out
from overedit.editing.model.weights import Replacement, applied, checksum
from tests.support.hooks import num_hooks
from tests.support.tiny_models import SETTINGS, tiny

EXPERTS = {family for family in SETTINGS if SETTINGS[family].keys() & {"num_experts", "num_local_experts"}}
TEXTS = [[1, 20, 30, 40, 50], [1, 60, 70], [1, 80, 90, 100], [1, 5]]


@pytest.mark.parametrize("family", sorted(SETTINGS.keys() - EXPERTS))
def test_the_linear_layers_are_those_of_the_decoder(family: str) -> None:
    model = tiny(family)
    found = linear_weights(model)
    assert all(checksum(model.get_parameter(name)) == checksum(m.get_parameter("weight")) for name, m in found.items())
    inside = {name for name, p in model.named_parameters() if p.dim() == 2}
    head = {"lm_head.weight", "embed_out.weight"}
    assert {name for name in inside - found.keys() - head if "embed" not in name and "wte" not in name} <= {
        "transformer.wpe.weight"
    }
    assert not any("embed" in name or "head" in name for name in found)
    assert set() < set(linear_weights(model, mlp_only=True)) < set(found)


@pytest.mark.parametrize("family", sorted(EXPERTS))
def test_routed_experts_are_refused(family: str) -> None:
    with pytest.raises(ValueError, match=f"the routed experts of family {family} .* are not linear layers"):
        linear_weights(tiny(family))


@pytest.mark.parametrize("in_out", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_each_output_channel_has_its_own_grid(bits: int, in_out: bool) -> None:
    weight_OI = torch.randn(5, 40, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1], [9], [0.1], [3], [0]]
    )
    most = 2 ** (bits - 1) - 1
    found = rounded(weight_OI.T if in_out else weight_OI, bits, in_out=in_out)
    found_OI = found.T if in_out else found
    for row, before in zip(found_OI, weight_OI, strict=True):
        scale = float(before.abs().max()) / most
        assert float((row - before).abs().max()) <= scale / 2 * 1.0001
        assert len(row.unique()) <= 2 * most + 1
        assert float(row.abs().max()) == pytest.approx(float(before.abs().max()))
    assert torch.equal(found_OI[4], torch.zeros(40)), "a channel of zeros has no scale"
    assert rounded(weight_OI.bfloat16(), bits, in_out=False).dtype == torch.bfloat16
    assert torch.allclose(rounded(found, bits, in_out=in_out), found), "a grid stays as it is"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_quantization_leaves_the_model_as_it_is_and_knows_both_orientations(family: str) -> None:
    model = tiny(family)
    before = {name: checksum(tensor) for name, tensor in model.state_dict().items()}
    update = quantized_weights(model, 4)
    assert {name: checksum(tensor) for name, tensor in model.state_dict().items()} == before
    for name, module in linear_weights(model).items():
        change = update[name]
        assert isinstance(change, Replacement)
        values_OI = change.tensor.T if stores_in_out(module) else change.tensor
        assert max(len(row.unique()) for row in values_OI) <= 15


def test_merging_is_a_line_between_base_and_edited() -> None:
    base = {"w": torch.tensor([1.0, 2.0, -3.0]), "other": torch.zeros(1)}
    edited = {"w": torch.tensor([2.0, 2.0, 1e-3])}
    assert torch.equal(merged(edited, base, 0)["w"], base["w"])
    assert torch.equal(merged(edited, base, 1)["w"], edited["w"])
    assert merged(edited, base, 0.5)["w"].tolist() == pytest.approx([1.5, 2.0, -1.4995])
    assert merged({"w": edited["w"].half()}, base, 0.5)["w"].dtype == torch.float16


def test_the_first_step_is_adams_and_its_loss_is_transformers() -> None:
    model = tiny("llama")
    options = PlainTextTuning(learning_rate=1e-3, batch_size=4)
    tuned = tune_on_text(model, TEXTS, options, steps=1)
    logits = [model(torch.tensor([ids])).logits[0, :-1] for ids in TEXTS]
    loss = cross_entropy(torch.cat(logits), torch.cat([torch.tensor(ids[1:]) for ids in TEXTS]))
    assert tuned.losses == pytest.approx([loss.item()], rel=1e-5)
    names = list(linear_weights(model))
    assert list(tuned.update) == names
    gradients = torch.autograd.grad(loss, [model.get_parameter(name) for name in names])
    for name, gradient in zip(names, gradients, strict=True):
        change = tuned.update[name]
        assert isinstance(change, Replacement)
        expected = model.get_parameter(name).detach() - 1e-3 * gradient / (gradient.abs() + 1e-8)
        assert torch.allclose(change.tensor, expected, atol=2e-5)


def test_training_is_pure_repeatable_and_lowers_the_loss() -> None:
    model = tiny("qwen2")
    model.train()
    before = {name: checksum(tensor) for name, tensor in model.state_dict().items()}
    flags, hooks, state = [p.requires_grad for p in model.parameters()], num_hooks(model), torch.get_rng_state()
    options = PlainTextTuning(learning_rate=3e-3, batch_size=3, max_tokens=4)
    first, second = (tune_on_text(model, TEXTS, options, steps=30) for _ in range(2))
    assert {name: checksum(tensor) for name, tensor in model.state_dict().items()} == before
    assert [p.requires_grad for p in model.parameters()] == flags and num_hooks(model) == hooks
    assert torch.equal(torch.get_rng_state(), state) and all(p.grad is None for p in model.parameters())
    assert first.losses == second.losses and first.losses[-1] < 0.7 * first.losses[0]
    assert all(torch.equal(first.update[name][0], second.update[name][0]) for name in first.update)
    other = tune_on_text(model, TEXTS, options.model_copy(update={"seed": 1}), steps=30)
    assert other.losses != first.losses, "another order of the texts"
    with applied(model.eval(), first.update):
        assert tune_on_text(model, TEXTS, options, steps=1).losses[0] < first.losses[0]


def test_mlp_alone_can_be_trained_and_text_without_a_second_token_cannot_be_used() -> None:
    model = tiny("gpt2")
    tuned = tune_on_text(model, TEXTS, PlainTextTuning(weights="mlp"), steps=2)
    assert set(tuned.update) == {
        f"transformer.h.{i}.mlp.{part}.weight" for i in range(3) for part in ("c_fc", "c_proj")
    }
    with pytest.raises(ValueError, match="none has two tokens or more"):
        tune_on_text(model, [[1], []], PlainTextTuning(), steps=1)
