"""The Kronecker factors of a loss's curvature: against a plain loop, of texts together, and of edits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from overedit.editing.methods.locate_then_edit.covariance import SecondMoment, second_moments
from overedit.editing.methods.locate_then_edit.curvature import (
    curvature,
    curvature_of_texts,
    earlier_edits,
    factor_names,
    is_factor,
    merged,
    reading_operations,
    site_of,
    with_edits,
)
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.shape import ModelShape
from tests.benchmarks.counting import Counted
from tests.support.hooks import num_hooks
from tests.support.teachable_models import byte_tokenizer, snapshot, unchanged
from tests.support.tiny_models import tiny

TEXTS = ("The river is long.", "Two boats", "a", "", "The Danube runs through Ulm and Vienna.", "No.")
SITES = ("0.up_proj", "1.down_proj")
NAMES = tuple(name for site in SITES for name in factor_names(site))
LENGTH = 30


def by_a_plain_loop(model: PreTrainedModel, site: str) -> tuple[torch.Tensor, torch.Tensor]:
    """One text at a time, by the model's own loss, float64; a byte is a token."""
    module = model.get_submodule(Anatomy.of(model).site_module(site))
    inputs, gradients = [], []
    for text in (text[:LENGTH] for text in TEXTS if len(text) > 1):
        ids = torch.tensor([byte_tokenizer()(text)["input_ids"]])
        seen: list[Any] = []

        def see(_: Any, args: Any, out: torch.Tensor, seen: list[Any] = seen) -> None:
            seen.extend((args[0], out))

        handle = module.register_forward_hook(see)
        loss = model(input_ids=ids, labels=ids).loss * (len(text) - 1)
        handle.remove()
        [gradient] = torch.autograd.grad(loss, seen[1])
        inputs.append(seen[0][0, :-1].detach().double())
        gradients.append(gradient[0, :-1].double())
    a, b = torch.cat(inputs), torch.cat(gradients)
    return a.T @ a / len(a), b.T @ b / len(b)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_factors_are_those_of_a_plain_loop(family: str) -> None:
    model = tiny(family)
    before, hooks = snapshot(model), num_hooks(model)
    found = curvature_of_texts(model, byte_tokenizer(), TEXTS, NAMES, max_length=LENGTH, max_tokens_per_pass=40)
    assert tuple(found) == NAMES
    assert unchanged(model, before) and num_hooks(model) == hooks
    assert not any("forward" in module.__dict__ for module in model.modules())
    for site in SITES:
        for name, expected in zip(factor_names(site), by_a_plain_loop(model, site), strict=True):
            assert found[name].num_tokens == 17 + 8 + 29 + 2
            error = float((found[name].matrix_II - expected).norm() / expected.norm())
            assert error < 1e-5, name


def test_only_what_is_asked_for_is_given() -> None:
    model, tokenizer = tiny("llama"), byte_tokenizer()
    [alone] = curvature_of_texts(model, tokenizer, TEXTS, ["1.down_proj.gradients"], max_length=64).items()
    both = curvature_of_texts(model, tokenizer, TEXTS, factor_names("1.down_proj"), max_length=64)
    assert alone[0] == "1.down_proj.gradients" and alone[1].matrix_II.shape == (32, 32)
    assert torch.equal(both[alone[0]].matrix_II, alone[1].matrix_II)
    assert (is_factor(alone[0]), is_factor("1.down_proj"), site_of(alone[0])) == (True, False, "1.down_proj")
    keys = second_moments(model, tokenizer, TEXTS, ["1.down_proj"], max_length=64)["1.down_proj"]
    assert keys.num_tokens == both["1.down_proj.inputs"].num_tokens + 5, "the last token of each text counts there"


def test_the_factors_of_two_texts_are_merged_by_their_tokens() -> None:
    model = tiny("gpt2")

    def of(texts: tuple[str, ...]) -> dict[str, SecondMoment]:
        return curvature_of_texts(model, byte_tokenizer(), texts, NAMES, max_length=64)

    first, second, whole = of(TEXTS[:2]), of(TEXTS[2:]), of(TEXTS)
    assert first[NAMES[0]].num_tokens != second[NAMES[0]].num_tokens
    for name in NAMES:
        together = merged(first[name], second[name])
        assert together.num_tokens == whole[name].num_tokens
        torch.testing.assert_close(together.matrix_II, whole[name].matrix_II, rtol=1e-5, atol=1e-8)
        assert merged(first[name], None) is first[name]
    state = with_edits(with_edits({}, first), second)
    for name in NAMES:
        stored = earlier_edits(state, name)
        assert stored is not None and stored.num_tokens == whole[name].num_tokens
        torch.testing.assert_close(stored.matrix_II, whole[name].matrix_II, rtol=1e-5, atol=1e-7)
    assert earlier_edits({}, NAMES[0]) is None


def test_values_that_are_not_finite_are_refused_or_left_out() -> None:
    model, texts = tiny("llama"), [[(1, 2, 3)]]
    good = curvature(model, texts, SITES)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"site 0.up_proj.gradients: .* not finite"):
        curvature(model, texts, SITES)
    damaged = curvature(model, texts, SITES, check=False)
    assert with_edits({}, damaged) == {}
    state = with_edits({}, good)
    assert with_edits(state, damaged) == state
    with pytest.raises(ValueError, match="not one token"):
        curvature(model, [[(1,)]], SITES)


@pytest.mark.parametrize("names", [SITES, NAMES])
def test_counted_operations(names: tuple[str, ...]) -> None:
    model, factors = tiny("llama"), names is NAMES
    texts = [(text * 30)[:40] for text in TEXTS if text]
    with Counted() as counted:
        (curvature_of_texts if factors else second_moments)(model, byte_tokenizer(), texts, names, max_length=64)
    tokens = 40 * len(texts)
    said = reading_operations(ModelShape.of(model, itemsize=4), names, tokens)
    assert 0.5 < sum(counted.flop.values()) / said < 1.5
