"""Streamed weights: every method has the bits of the whole model, and few layers are on the device at once."""

from __future__ import annotations

import copy
import weakref
from collections import Counter

import pytest
import torch
from transformers import PreTrainedModel

from overedit.editing.methods.base import EditResult
from overedit.editing.methods.registry import METHODS
from overedit.editing.model.anatomy import FAMILIES, Anatomy
from overedit.editing.model.hooks import frozen
from overedit.editing.model.partial_forward.prefix_cache import compute_prefix
from overedit.editing.model.partial_forward.shared_prefix import SharedPrefix
from overedit.editing.model.streaming import HELD_LAYERS, is_streamed, stream_layers
from overedit.editing.model.weights import checksum
from tests.support.quick_methods import config_of, covariance_of
from tests.support.teachable_models import byte_tokenizer, samples_of, some_requests
from tests.support.tiny_models import tiny


class Fetches:
    """Gives out copies of a model's weights; counts them, and those that are alive at the same time."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        self.counts: Counter[str] = Counter()
        self.alive: set[int] = set()
        self.most_alive = 0

    def __call__(self, name: str) -> torch.Tensor:
        self.counts[name] += 1
        copied = self.weights[name].clone()
        number = sum(self.counts.values())
        self.alive.add(number)
        self.most_alive = max(self.most_alive, len(self.alive))
        weakref.finalize(copied, self.alive.discard, number)
        return copied


def streamed(model: PreTrainedModel, sites: tuple[str, ...]) -> tuple[PreTrainedModel, Fetches]:
    other, fetches = copy.deepcopy(model), Fetches(model)
    stream_layers(other, fetches, sites=sites)
    return other, fetches


def bits(result: EditResult) -> dict[str, str]:
    updates = {f"{n}.{i}": checksum(t) for n, change in result.update.items() for i, t in enumerate(change)}
    return updates | {name: checksum(tensor) for name, tensor in result.state.items()}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_the_bits_of_the_whole_model(name: str, family: str) -> None:
    model, config = tiny(family, num_hidden_layers=6) if family != "gpt2" else tiny(family, n_layer=6), config_of(name)
    inputs = {"state": {}, "seed": 3} | covariance_of(name, model)
    other, fetches = streamed(model, config.sites)
    function = METHODS[name].function
    whole = function(model, byte_tokenizer(), some_requests(6), config, **inputs)
    part = function(other, byte_tokenizer(), some_requests(6), config, **inputs)
    assert bits(part) == bits(whole)
    assert part.log == whole.log
    per_layer = max(
        Counter(n.removeprefix(f"{Anatomy.of(model).layers}.").split(".")[0] for n in fetches.counts).values()
    )
    assert fetches.most_alive <= HELD_LAYERS * per_layer < len(fetches.counts)
    edited = {name for site in config.sites for name in Anatomy.of(other).site_parameters(site)}
    assert not any(other.get_parameter(name).is_meta for name in edited)
    assert all(
        parameter.is_meta for name, parameter in other.named_parameters() if ".layers.4." in name or ".h.4." in name
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forward_and_a_backward_pass_have_the_bits_of_the_whole_model(family: str) -> None:
    model = tiny(family).requires_grad_(False)
    other, _ = streamed(model, ())
    found = []
    for each in (model, other):
        inputs = each.get_input_embeddings()(torch.arange(24).view(2, 12)).detach().requires_grad_()
        logits = each(inputs_embeds=inputs, use_cache=False).logits
        (gradient,) = torch.autograd.grad(logits.square().mean(), inputs)
        found.append((logits.detach(), gradient))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert float(found[0][1].abs().max()) > 0
    assert is_streamed(other) and not is_streamed(model)


def test_a_frozen_prefix_fetches_each_layer_once_for_all_sequences() -> None:
    model = tiny("llama", num_hidden_layers=6)
    other, fetches = streamed(model, ("5.down_proj",))
    sequences = [sample.ids for sample in samples_of(model)]
    with frozen(model), frozen(other):
        whole = compute_prefix(model, "5.down_proj", sequences, max_bytes=2**30, max_tokens_per_pass=60)
        part = SharedPrefix()(other, "5.down_proj", sequences, max_bytes=2**30, max_tokens_per_pass=60)
    assert whole.inputs_RX is not None and part.inputs_RX is not None
    assert torch.equal(part.inputs_RX, whole.inputs_RX) and part.start == whole.start == "module"
    assert set(fetches.counts.values()) == {1}, "many passes, and still one fetch of each weight"


def test_weights_that_are_needed_after_an_error_are_still_there() -> None:
    model = tiny("llama").requires_grad_(False)
    other, _ = streamed(model, ())
    with pytest.raises(IndexError), torch.no_grad():
        other(input_ids=torch.tensor([[100_000]]))
    ids = torch.arange(5)[None]
    with torch.no_grad():
        assert torch.equal(other(input_ids=ids).logits, model(input_ids=ids).logits)
