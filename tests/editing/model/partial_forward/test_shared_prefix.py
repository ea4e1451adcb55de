"""Prefixes of several sites in one pass over the layers: the same bits as separate ones, and fewer layers run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from transformers import PreTrainedModel

from overedit.editing.methods.base import MethodConfig
from overedit.editing.methods.fine_tuning.tuner import SiteTuning, tuning
from overedit.editing.methods.registry import METHODS
from overedit.editing.model.anatomy import FAMILIES as ANATOMIES
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.hooks import frozen
from overedit.editing.model.partial_forward.prefix_cache import Prefix, PrefixOf, compute_prefix
from overedit.editing.model.partial_forward.shared_prefix import SharedPrefix
from overedit.tasks.editing_job.in_memory import edit_in_memory
from tests.support.quick_methods import config_of
from tests.support.teachable_models import byte_tokenizer, samples_of, some_requests, teachable
from tests.support.tiny_models import tiny

PARTS = ("layer", "attention", "mlp", "up_proj", "gate_proj", "down_proj")
LARGE = 2**30


def sites_of(model: PreTrainedModel) -> list[str]:
    anatomy = Anatomy.of(model)
    return [f"{layer}.{part}" for layer in range(anatomy.num_layers) for part in PARTS if part in anatomy.parts]


def sequences_of(model: PreTrainedModel) -> list[tuple[int, ...]]:
    return [sample.ids for sample in samples_of(model)]


def prefix(prefix_of: PrefixOf, model: PreTrainedModel, site: str, *, max_bytes: int = LARGE) -> Prefix:
    with frozen(model):
        return prefix_of(model, site, sequences_of(model), max_bytes=max_bytes, max_tokens_per_pass=60)


def same_bits(one: Prefix, other: Prefix) -> bool:
    kept = [(one.inputs_RX, other.inputs_RX), (one.rest_RD, other.rest_RD)]
    equal = all((a is None and b is None) or (a is not None and b is not None and torch.equal(a, b)) for a, b in kept)
    plain = (one.start, one.first_rows, one.lengths, one.gives_tuple)
    return equal and plain == (other.start, other.first_rows, other.lengths, other.gives_tuple)


@pytest.mark.parametrize("family", ANATOMIES)
def test_each_site_has_the_bits_of_its_own_prefix(family: str) -> None:
    model = teachable(family)
    shared = SharedPrefix()
    for site in sites_of(model):
        alone = prefix(compute_prefix, model, site)
        assert same_bits(prefix(shared, model, site), alone), site
        assert same_bits(prefix(shared, model, site), alone), f"{site}, asked once more"


def test_half_precision_too() -> None:
    model = tiny("llama", dtype=torch.bfloat16)
    shared = SharedPrefix()
    for site in sites_of(model):
        assert same_bits(prefix(shared, model, site), prefix(compute_prefix, model, site)), site


@contextmanager
def layers_run(model: PreTrainedModel) -> Iterator[Counter[int]]:
    """Counts the rows that each layer computes."""
    found: Counter[int] = Counter()
    runs = [layer.self_attn.forward for layer in model.model.layers]

    def counting(index: int):  # type: ignore[no-untyped-def]
        def run(*args, **kwargs):  # type: ignore[no-untyped-def]
            hidden = kwargs.get("hidden_states", args[0] if args else None)
            found[index] += hidden.shape[0] > 1  # the look at a layer runs a single sequence
            return runs[index](*args, **kwargs)

        return run

    for index, layer in enumerate(model.model.layers):
        layer.self_attn.forward = counting(index)
    yield found
    for layer in model.model.layers:
        del layer.self_attn.forward


def test_a_layer_is_run_once_for_all_sites_and_once_more_for_its_down_projection() -> None:
    model = teachable("llama")
    with frozen(model):
        num_groups = 0
        with layers_run(model) as found:
            compute_prefix(model, "1.layer", sequences_of(model), max_bytes=LARGE, max_tokens_per_pass=60)
        num_groups = found[0]
        assert num_groups > 1 and found[1] == 0
        shared = SharedPrefix()
        with layers_run(model) as found:
            for site in sites_of(model):
                shared(model, site, sequences_of(model), max_bytes=LARGE, max_tokens_per_pass=60)
    assert [found[layer] for layer in range(3)] == [2 * num_groups, 2 * num_groups, num_groups]


def test_an_earlier_layer_or_other_sequences_start_again() -> None:
    model = teachable("llama")
    shared = SharedPrefix()
    prefix(shared, model, "2.mlp")
    assert same_bits(prefix(shared, model, "1.down_proj"), prefix(compute_prefix, model, "1.down_proj"))
    others = sequences_of(model)[2:5]
    with frozen(model):
        one, other = (
            prefix_of(model, "2.mlp", others, max_bytes=LARGE, max_tokens_per_pass=60)
            for prefix_of in (shared, compute_prefix)
        )
    assert same_bits(one, other)


@pytest.mark.parametrize(("width", "start"), [(80, "module"), (79, "layer"), (32, "layer"), (31, "embedding")])
def test_what_does_not_fit_is_left_out_as_without_sharing(width: int, start: str) -> None:
    model = teachable("llama")
    tokens = sum(map(len, sequences_of(model)))
    shared = SharedPrefix()
    for site in ("0.down_proj", "1.down_proj", "2.down_proj"):
        found = prefix(shared, model, site, max_bytes=width * 4 * tokens)
        assert found.start == start
        assert same_bits(found, prefix(compute_prefix, model, site, max_bytes=width * 4 * tokens))


def test_a_site_that_starts_at_its_layer_shares_the_memory() -> None:
    model = teachable("llama")
    shared = SharedPrefix()
    one, other = prefix(shared, model, "1.mlp"), prefix(shared, model, "1.attention")
    assert one.inputs_RX is not None and one.inputs_RX is other.inputs_RX


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.config.takes_prefix])
def test_edits_have_the_same_bits_with_and_without_sharing(name: str) -> None:
    model, requests = teachable("llama"), some_requests(6)
    shared = SharedPrefix()

    def values(config: MethodConfig, inputs: dict[str, object]) -> dict[str, torch.Tensor]:
        with edit_in_memory(model, byte_tokenizer(), requests, config, turn_size=3, inputs=inputs) as edit:
            return {parameter: model.get_parameter(parameter).detach().clone() for parameter in edit.parameters}

    for site in sites_of(model):
        config = config_of(name).at_site(site)
        together, alone = values(config, {"prefix_of": shared}), values(config, {})
        inside = Anatomy.of(model).site_parameters(site)
        edited = {
            one for one in inside if name != "peft" or model.get_parameter(one).ndim == 2
        }  # adapters have no norms
        assert together.keys() == alone.keys() == edited
        assert all(torch.equal(together[parameter], alone[parameter]) for parameter in alone), site


def test_a_tuner_starts_from_the_prefix_it_is_given() -> None:
    model = teachable("llama")
    asked: list[str] = []

    def asking(model: PreTrainedModel, site: str, *args: object, **options: object) -> Prefix:
        asked.append(site)
        return compute_prefix(model, site, *args, **options)  # type: ignore[arg-type]

    with tuning(model, samples_of(model), SiteTuning(site="1.mlp"), prefix_of=asking) as tuner:
        tuner.step([0, 1])
    assert asked == ["1.mlp"]
