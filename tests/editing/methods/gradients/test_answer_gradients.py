"""Traced answers against a plain forward and backward pass, on every family."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel

from overedit.editing.methods.gradients.answer_gradients import trace_answers
from overedit.editing.model.anatomy import FAMILIES, stores_in_out
from overedit.editing.model.hooks import Trace, traced
from overedit.editing.model.tokenization import TokenPair
from tests.support.answer_pairs import PAIRS, WEIGHTS, sites
from tests.support.hooks import num_hooks
from tests.support.oracles import IGNORED, pad_pairs
from tests.support.teachable_models import snapshot, unchanged
from tests.support.tiny_models import tiny


def plain_loss(model: PreTrainedModel, pairs: list[TokenPair], names: list[str]) -> tuple[Trace, torch.Tensor]:
    """The ordinary way: one padded batch, attention mask, logits everywhere, weight gradients kept."""
    batch = pad_pairs(pairs, pad_id=0)
    with traced(model, names) as trace:
        logits = model(input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT).logits
    nll_BT = -logits.log_softmax(-1).gather(-1, batch.labels_BT.clamp_min(0)[..., None])[..., 0]
    return trace, ((nll_BT * (batch.labels_BT != IGNORED)).sum(1) * torch.tensor(WEIGHTS)).sum()


@pytest.mark.parametrize(
    ("limit", "lane"),
    [(1000, 1000), (1000, 14), (12, 12), (1, 1)],
    ids=["one lane", "two lanes", "passes", "each alone"],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_equal_those_of_a_plain_pass(family: str, limit: int, lane: int) -> None:
    model = tiny(family)
    names = sites(model)
    trace, loss = plain_loss(model, PAIRS, names)
    gradients = trace.output_gradients(loss)
    rows = trace_answers(model, PAIRS, names, WEIGHTS, max_tokens_per_pass=limit, pack_tokens=lane)
    asked = (pad_pairs(PAIRS, pad_id=0).labels_BT != IGNORED).flatten()
    for name in names:
        for seen, expected in zip(rows.modules[name], (trace.inputs[name], gradients[name]), strict=True):
            torch.testing.assert_close(seen, expected.reshape(-1, seen.shape[1])[asked], rtol=1e-3, atol=2e-6)
    weights = torch.cat([torch.full((len(pair.target),), w) for pair, w in zip(PAIRS, WEIGHTS, strict=True)])
    assert float((rows.losses * weights).sum()) == pytest.approx(float(loss.detach()), rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_gradients_add_up_to_the_weight_gradient(family: str) -> None:
    """dL/dW = sum g k^T over all positions; with prompts of one token all positions are the answers'."""
    model = tiny(family)
    names = sites(model)
    pairs = [TokenPair(pair.prompt[-1:], pair.target) for pair in PAIRS]
    plain_loss(model, pairs, names)[1].backward()
    rows = trace_answers(model, pairs, names, WEIGHTS, max_tokens_per_pass=1000, pack_tokens=32)
    for name in names:
        module = model.get_submodule(name)
        summed = rows.modules[name].gradients.T @ rows.modules[name].keys
        expected = module.weight.grad.T if stores_in_out(module) else module.weight.grad
        torch.testing.assert_close(summed, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "gpt2", "gpt_neox"])
def test_the_model_is_as_before(family: str) -> None:
    model = tiny(family)
    model.train()
    model.get_output_embeddings().weight.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    before, hooks = snapshot(model), num_hooks(model)
    trace_answers(model, PAIRS, sites(model), WEIGHTS, max_tokens_per_pass=8, pack_tokens=32)
    assert unchanged(model, before)
    assert all(module.training for module in model.modules())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert num_hooks(model) == hooks
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_backward_ends_at_the_lowest_traced_module() -> None:
    """A module below would need a gradient only if the pass went further down: it must not even be in the graph."""
    model = tiny("llama")
    seen = []
    model.model.layers[0].register_forward_hook(lambda _, __, output: seen.append(output.requires_grad))
    model.model.layers[1].register_forward_hook(lambda _, __, output: seen.append(output.requires_grad))
    trace_answers(model, PAIRS, ["model.layers.1.mlp.down_proj"], WEIGHTS, max_tokens_per_pass=99, pack_tokens=32)
    assert seen == [False, False, False, True]  # the prompts' pass, then the answers'


def test_the_head_runs_on_answers_only() -> None:
    model = tiny("llama")
    sizes: list[int] = []
    run = model.lm_head.forward
    model.lm_head.forward = lambda hidden: (sizes.append(hidden.shape[0] * hidden.shape[1]), run(hidden))[1]
    trace_answers(model, PAIRS, sites(model), WEIGHTS, max_tokens_per_pass=99, pack_tokens=32)
    assert sizes == [10]


def test_half_precision_gives_float32_rows() -> None:
    exact = trace_answers(
        tiny("llama"), PAIRS, ["model.layers.1.mlp.up_proj"], WEIGHTS, max_tokens_per_pass=99, pack_tokens=32
    )
    model = tiny("llama", dtype=torch.bfloat16)
    rough = trace_answers(model, PAIRS, ["model.layers.1.mlp.up_proj"], WEIGHTS, max_tokens_per_pass=99, pack_tokens=32)
    for seen, expected in zip(
        rough.modules["model.layers.1.mlp.up_proj"], exact.modules["model.layers.1.mlp.up_proj"], strict=True
    ):
        assert seen.dtype == torch.float32
        assert float((seen - expected).norm() / expected.norm()) < 0.05


def test_sliding_windows_count_no_padding() -> None:
    """A window of 6 over sequences of up to 8: with padding inside, a window would reach less far back."""
    model = tiny("mistral", sliding_window=6)
    names = ["model.layers.1.mlp.down_proj"]
    trace, loss = plain_loss(model, PAIRS, names)
    gradients = trace.output_gradients(loss)[names[0]].flatten(0, 1)
    rows = trace_answers(model, PAIRS, names, WEIGHTS, max_tokens_per_pass=1000, pack_tokens=32)
    asked = (pad_pairs(PAIRS, pad_id=0).labels_BT != IGNORED).flatten()
    torch.testing.assert_close(rows.modules[names[0]].gradients, gradients[asked], rtol=1e-3, atol=2e-6)


def test_flash_attention_is_refused() -> None:
    model = tiny("llama")
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match="attention: flash attention takes no mask of this kind"):
        trace_answers(model, PAIRS, ["lm_head"], WEIGHTS, max_tokens_per_pass=99, pack_tokens=9)
