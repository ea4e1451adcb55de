"""Recording a forward pass, and leaving nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from overedit.editing.model.hooks import frozen, standing_in, traced
from tests.support.hooks import num_hooks
from tests.support.tiny_models import tiny

IDS = torch.tensor([[5, 6, 7, 8]])


def test_records_what_enters_and_leaves() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))
    x = torch.randn(5, 3)
    with traced(model, ["0", "2"]) as trace:
        model(x)
    assert torch.equal(trace.inputs["0"], x)
    torch.testing.assert_close(trace.outputs["0"], model[0](x))
    torch.testing.assert_close(trace.inputs["2"], torch.tanh(model[0](x)))
    assert num_hooks(model) == 0


@pytest.mark.parametrize("family", ["llama", "gpt2", "gptj"])
def test_layers_that_give_tensors_or_tuples(family: str) -> None:
    model = tiny(family)
    name = "model.layers.1" if family == "llama" else "transformer.h.1"
    with torch.no_grad(), traced(model, [name]) as trace:
        model(IDS)
    assert trace.outputs[name].shape == trace.inputs[name].shape == (1, 4, 32)


def test_output_gradients_need_no_weight_gradients_and_end_at_the_lowest_module() -> None:
    model = tiny("llama")
    names = ["model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj", "model.layers.2.mlp.down_proj"]
    with frozen(model):
        with traced(model, names, gradients=True) as trace, traced(model, ["model.layers.0"]) as below:
            loss = model(IDS).logits[0].logsumexp(-1).sum()
        gradients = trace.output_gradients(loss)
        assert not below.outputs["model.layers.0"].requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    model(IDS).logits[0].logsumexp(-1).sum().backward()
    for name in names:
        from_rows = gradients[name][0].T @ trace.inputs[name][0]  # dL/dW = sum g k^T
        torch.testing.assert_close(from_rows, model.get_submodule(name).weight.grad, rtol=1e-4, atol=1e-5)


def test_a_module_that_the_loss_does_not_see_has_no_gradient() -> None:
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2)})
    with frozen(model), traced(model, ["used", "unused"], gradients=True) as trace:
        x = torch.ones(1, 2)
        loss = model["used"](x).sum() + 0 * model["unused"](x).detach().sum()
        gradients = trace.output_gradients(loss)
    assert gradients["used"].tolist() == [[1.0, 1.0]]
    assert gradients["unused"].tolist() == [[0.0, 0.0]]


def test_hooks_do_not_outlive_an_error_or_displace_others() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    seen: list[int] = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    with pytest.raises(RuntimeError), traced(model, ["0"]):
        model(torch.randn(5, 4))
    assert num_hooks(model) == 1
    with pytest.raises(AttributeError), traced(model, ["0", "7"]):
        pass
    model(torch.randn(5, 3))
    assert (seen, num_hooks(model)) == ([1], 1)


def test_replaced_forwards_end_with_their_block() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    x = -torch.ones(1, 3)
    before = model(x)
    with standing_in({model[0]: lambda given: given * 2}):
        with standing_in({model[0]: lambda given: -given}):
            assert model(x).tolist() == [[1.0, 1.0, 1.0]]
        assert model(x).tolist() == [[0.0, 0.0, 0.0]]
    with pytest.raises(ZeroDivisionError), standing_in({model[0]: lambda given: 1 // 0}):
        model(x)
    assert torch.equal(model(x), before)
    assert "forward" not in model[0].__dict__


def test_frozen_gives_mode_and_flags_back() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.Linear(3, 3))
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match="stop"), frozen(model):
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
        raise ValueError("stop")
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, True, True, True]
