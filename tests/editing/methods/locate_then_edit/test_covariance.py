"""The covariance of keys: against golden numbers and a plain loop, in one pass, and leaving nothing behind."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from overedit.editing.methods.base import CovarianceOptions
from overedit.editing.methods.locate_then_edit.covariance import SecondMoment, second_moments
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.hooks import standing_in, traced
from overedit.editing.model.weights import checksum
from tests.support.hooks import num_hooks
from tests.support.small_model import small_tokenizer
from tests.support.teachable_models import byte_tokenizer
from tests.support.tiny_models import tiny
from tests.support.triangles import symmetric

TEXTS = [f"{'on ' * (i % 5)}line {i * i}: {'abcdefgh'[: 1 + i % 8]}" for i in range(30)]
SITES = ("0.down_proj", "1.up_proj", "1.down_proj", "1.o_proj")


def relative(seen: torch.Tensor, expected: torch.Tensor) -> float:
    return float((seen.double() - expected.double()).norm() / expected.double().norm())


def plain(model: PreTrainedModel, ids: list[list[int]], site: str) -> torch.Tensor:
    """The mean of k k^T, one text at a time, float64."""
    name = Anatomy.of(model).site_module(site)
    keys = []
    for row in ids:
        with torch.no_grad(), traced(model, [name]) as trace:
            model(torch.tensor([row]))
        keys.append(trace.inputs[name].double().flatten(0, -2))
    rows = torch.cat(keys)
    return rows.T @ rows / len(rows)


@contextmanager
def counted(model: PreTrainedModel) -> Iterator[dict[str, int]]:
    """How often each module with a name runs."""
    runs = dict.fromkeys((name for name, _ in model.named_modules()), 0)

    def counting(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            runs[name] += 1
            return run(*args, **kwargs)

        return forward

    with standing_in({module: counting(name, module.forward) for name, module in model.named_modules() if name}):
        yield runs


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gpt2"])
def test_golden(name: str, golden: Path) -> None:
    case = json.loads((golden / "covariance" / "case.json").read_text())
    expected = load_file(golden / "covariance" / f"{name}.safetensors")
    folder = golden / "models" / name
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    anatomy = Anatomy.of(model)
    sites = [f"{layer}.down_proj" for layer in range(4)]
    found = second_moments(model, tokenizer, case["sentences"], sites, max_length=256)
    assert {anatomy.site_module(site) for site in sites} == set(expected)
    for site in sites:
        assert found[site].num_tokens == case["tokens"][name]
        assert relative(found[site].matrix_II, symmetric(expected[anatomy.site_module(site)])) < 1e-6  # asked for: 1e-5


@pytest.mark.parametrize("family", ["llama", "gpt2", "gptj", "gpt_neox", "gemma2", "qwen2_moe"])
def test_every_kind_of_site_is_the_mean_over_tokens(family: str) -> None:
    model, tokenizer = tiny(family), byte_tokenizer()
    parts = ("o_proj", "up_proj", "down_proj")
    sites = [f"{layer}.{part}" for layer in (0, 2) for part in parts if part in Anatomy.of(model).parts]
    found = second_moments(model, tokenizer, TEXTS[:9], sites, max_length=64, max_tokens_per_pass=50)
    ids = tokenizer(TEXTS[:9])["input_ids"]
    for site in sites:
        assert found[site].num_tokens == sum(map(len, ids))
        assert found[site].matrix_II.dtype == torch.float64
        assert torch.equal(found[site].matrix_II, found[site].matrix_II.T)
        assert relative(found[site].matrix_II, plain(model, ids, site)) < 1e-6


def test_a_wide_projection_is_summed_in_blocks() -> None:
    model, tokenizer = tiny("llama", intermediate_size=2500), byte_tokenizer()
    texts = TEXTS[:4]
    found = second_moments(model, tokenizer, texts, ["1.down_proj"], max_length=64)["1.down_proj"]
    ids = tokenizer(texts)["input_ids"]
    assert relative(found.matrix_II, plain(model, ids, "1.down_proj")) < 1e-6
    halves = [plain(model, ids[start::2], "1.down_proj")[:1024, :1024] for start in (0, 1)]
    gap = (halves[0] - halves[1]).norm() / found.matrix_II[:1024, :1024].norm()
    assert found.convergence == pytest.approx(float(gap), rel=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 40, 333])
def test_neither_padding_nor_the_size_of_a_pass_matters(max_tokens: int) -> None:
    model = tiny("llama", dtype=torch.float64)
    whole = second_moments(model, byte_tokenizer(), TEXTS, SITES, max_length=64)
    parts = second_moments(model, byte_tokenizer(), iter(TEXTS), SITES, max_length=64, max_tokens_per_pass=max_tokens)
    for site in SITES:
        assert parts[site].num_tokens == whole[site].num_tokens
        assert relative(parts[site].matrix_II, whole[site].matrix_II) < 1e-12
        assert parts[site].convergence == pytest.approx(whole[site].convergence, rel=1e-9)


def test_long_texts_are_cut_at_the_length_asked_for_and_at_the_context() -> None:
    model, tokenizer = tiny("gpt2"), byte_tokenizer()
    texts = ["x" * 5, "y" * 200]
    for length, tokens in ((3, 6), (20, 25), (500, 5 + 64)):
        found = second_moments(model, tokenizer, texts, ["1.down_proj"], max_length=length)["1.down_proj"]
        assert found.num_tokens == tokens
    cut = [ids[:20] for ids in tokenizer(texts)["input_ids"]]
    found = second_moments(model, tokenizer, texts, ["1.down_proj"], max_length=20)["1.down_proj"]
    assert relative(found.matrix_II, plain(model, cut, "1.down_proj")) < 1e-6


def test_a_beginning_of_text_token_counts_like_any_other() -> None:
    model, tokenizer = tiny("llama", vocab_size=400), small_tokenizer(TEXTS)
    ids = tokenizer(TEXTS[:3])["input_ids"]
    assert {row[0] for row in ids} == {1}
    found = second_moments(model, tokenizer, TEXTS[:3], ["1.down_proj"], max_length=64)["1.down_proj"]
    assert found.num_tokens == sum(map(len, ids))
    assert relative(found.matrix_II, plain(model, ids, "1.down_proj")) < 1e-6


def test_all_sites_come_from_one_pass_that_ends_at_the_last() -> None:
    model = tiny("llama")
    with counted(model) as runs:
        second_moments(model, byte_tokenizer(), TEXTS, SITES, max_length=64)
    passes = runs["model.embed_tokens"]
    assert passes == runs["model.layers.0.mlp.down_proj"] == runs["model.layers.1.mlp.up_proj"] > 0
    assert runs["model.layers.1"] == passes
    assert runs["model.layers.1.mlp.down_proj"] == runs["model.layers.2"] == runs["model.norm"] == runs["lm_head"] == 0
    with counted(model) as alone:
        second_moments(model, byte_tokenizer(), TEXTS, ["0.down_proj"], max_length=64)
    assert alone["model.embed_tokens"] == passes
    assert alone["model.layers.1"] == 0


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_it_is_pure(family: str) -> None:
    """Bits, gradient flags, training mode, hooks and random numbers are as before; dropout is off meanwhile."""
    model = tiny(family)
    model.train()
    model.get_input_embeddings().weight.requires_grad_(False)
    bits = {key: checksum(tensor) for key, tensor in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    hooks, random = num_hooks(model), torch.get_rng_state()
    first, again = (second_moments(model, byte_tokenizer(), TEXTS, ["1.down_proj"], max_length=64) for _ in range(2))
    assert torch.equal(first["1.down_proj"].matrix_II, again["1.down_proj"].matrix_II)
    assert {key: checksum(tensor) for key, tensor in model.state_dict().items()} == bits
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(module.training for module in model.modules())
    assert num_hooks(model) == hooks
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_convergence_compares_every_other_text() -> None:
    model, tokenizer = tiny("llama"), byte_tokenizer()
    found = second_moments(model, tokenizer, TEXTS, ["1.down_proj"], max_length=64)["1.down_proj"]
    ids = tokenizer(TEXTS)["input_ids"]
    even, odd = plain(model, ids[::2], "1.down_proj"), plain(model, ids[1::2], "1.down_proj")
    assert found.convergence == pytest.approx(float((even - odd).norm() / found.matrix_II.norm()), rel=1e-5)
    alike = second_moments(model, tokenizer, ["same", "same"], ["1.down_proj"], max_length=64)["1.down_proj"]
    assert alike.convergence < 1e-12
    assert (
        second_moments(model, tokenizer, ["one"], ["1.down_proj"], max_length=64)["1.down_proj"].convergence == math.inf
    )


def test_progress_counts_texts_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    texts = ["", *TEXTS, ""]
    second_moments(
        tiny("llama"),
        byte_tokenizer(),
        texts,
        ["0.down_proj"],
        max_length=64,
        max_tokens_per_pass=99,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {len(texts)}
    assert seen[-1][0] == len(texts)


def test_what_cannot_be_computed_is_an_error() -> None:
    model, tokenizer = tiny("llama"), byte_tokenizer()
    with pytest.raises(ValueError, match="not one token"):
        second_moments(model, tokenizer, ["", ""], ["1.down_proj"], max_length=64)
    with pytest.raises(ValueError, match="not a projection"):
        second_moments(model, tokenizer, TEXTS, ["1.mlp"], max_length=64)
    with pytest.raises(ValueError, match="layer 7 does not exist"):
        second_moments(model, tokenizer, TEXTS, ["7.down_proj"], max_length=64)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight *= 1e38
    with pytest.raises(ValueError, match=r"site 0.down_proj: keys that are not finite in torch.float32"):
        second_moments(model, tokenizer, TEXTS, ["0.down_proj"], max_length=64)


def test_factors() -> None:
    rows = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows[:, 5] = rows[:, 4] * (1 + 1e-9)
    moment = SecondMoment(rows[:, :5].T @ rows[:, :5] / 40, 40, 0.0)
    torch.testing.assert_close(moment.cholesky_II @ moment.cholesky_II.T, moment.matrix_II)
    assert moment.cholesky_II is moment.cholesky_II
    wide = SecondMoment(rows.T @ rows / 40, 40, 0.0)
    basis = wide.null_space(1e-6)
    assert basis.shape == (6, 1)
    assert float((wide.matrix_II @ basis).norm()) < 1e-6


def test_a_covariance_without_full_rank_has_a_factor_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    rows = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moment = SecondMoment(rows.T @ rows / 3, 3, 0.0)
    with caplog.at_level(logging.WARNING):
        factor = moment.cholesky_II
    assert "C0 of 6 inputs over 3 tokens has no inverse" in caplog.text
    torch.testing.assert_close(factor @ factor.T, moment.matrix_II, rtol=1e-9, atol=1e-9)
    assert factor.diagonal().min() > 0


def test_options_are_checked() -> None:
    assert CovarianceOptions(corpus="pocket").num_samples == 100_000
    for wrong in ({"num_samples": 0}, {"max_length": 5000}, {"dtype": "float16"}, {"texts": 3}):
        with pytest.raises(ValidationError):
            CovarianceOptions.model_validate({"corpus": "pocket"} | wrong)
