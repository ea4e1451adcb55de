"""Properties of every method: purity, repeatability, and a complete row in the registry."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from transformers import PreTrainedModel

from overedit.editing.methods.base import CovarianceOptions, EditResult, MethodConfig
from overedit.editing.methods.registry import METHODS, AnyMethod
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.weights import applied, apply_update, checksum
from tests.support.hooks import num_hooks
from tests.support.quick_methods import config_of, covariance_of, quick_settings
from tests.support.teachable_models import byte_tokenizer, some_requests
from tests.support.tiny_models import tiny

FAMILIES = ("llama", "mistral", "qwen2", "gpt2", "gpt_neox")


def run(name: str, model: PreTrainedModel, **arguments: Any) -> EditResult:
    arguments = {"state": {}, "seed": 3} | covariance_of(name, model) | arguments
    return METHODS[name].function(model, byte_tokenizer(), some_requests(6), config_of(name), **arguments)


def same(first: EditResult, second: EditResult) -> bool:
    tensors = [
        {f"{name}.{i}": checksum(tensor) for name, change in result.update.items() for i, tensor in enumerate(change)}
        | {name: checksum(tensor) for name, tensor in result.state.items()}
        for result in (first, second)
    ]
    return tensors[0] == tensors[1] and first.log == second.log


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_pure(name: str, family: str) -> None:
    """Bits, gradient flags, training mode, hooks, the caller's tensors and random numbers: all are unchanged."""
    model = tiny(family)
    model.train()
    model.get_input_embeddings().weight.requires_grad_(False)
    bits = {key: checksum(tensor) for key, tensor in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    hooks, random = num_hooks(model), torch.get_rng_state()
    first = run(name, model)
    assert {key: checksum(tensor) for key, tensor in model.state_dict().items()} == bits
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert num_hooks(model) == hooks
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random)
    assert same(first, run(name, model)), "two calls must agree"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_works_where_gradients_are_off(name: str) -> None:
    model = tiny("llama")
    given = covariance_of(name, model)
    with torch.no_grad(), torch.inference_mode():
        result = METHODS[name].function(model, byte_tokenizer(), some_requests(6), config_of(name), {}, seed=3, **given)
    assert same(result, run(name, model))


@pytest.mark.parametrize("name", METHODS)
def test_an_update_changes_the_sites_and_nothing_else(name: str) -> None:
    model = tiny("llama")
    anatomy = Anatomy.of(model)
    sites = config_of(name).sites
    result = run(name, model)
    beside = METHODS[name].router is not None
    at_sites = {parameter for site in sites for parameter in anatomy.site_parameters(site)}
    assert set(result.update) == (set() if beside else at_sites)
    before = {key: checksum(tensor) for key, tensor in model.state_dict().items()}
    apply_update(model, result.update)
    after = {key: checksum(tensor) for key, tensor in model.state_dict().items()}
    assert {key for key in before if before[key] != after[key]} == set(result.update)


@pytest.mark.parametrize("name", METHODS)
def test_state_update_and_log_can_be_stored(name: str) -> None:
    model = tiny("llama")
    result = run(name, model)
    assert json.loads(json.dumps(result.log)) == result.log
    assert all(tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in result.state.values())
    assert not any(t.requires_grad for change in result.update.values() for t in change)
    again = run(name, model, state=result.state)
    assert set(again.state) == set(result.state)


@pytest.mark.parametrize("name", METHODS)
def test_progress_ends_at_its_end(name: str) -> None:
    seen: list[tuple[int, int]] = []
    run(name, tiny("llama"), progress=lambda done, total: seen.append((done, total)))
    assert seen
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_models_can_be_edited(name: str) -> None:
    model = tiny("llama", dtype=torch.bfloat16)
    with applied(model, run(name, model).update):
        assert model.dtype == torch.bfloat16
        assert model(torch.tensor([[1, 2, 3]])).logits.isfinite().all()


def test_registry_rows_are_complete() -> None:
    for name, entry in METHODS.items():
        assert entry.config.model_fields["method"].default == name == entry.name
        assert issubclass(entry.config, MethodConfig)
        assert config_of(name).sites
        assert isinstance(config_of(name).covariance_options, CovarianceOptions | None)
        assert entry.label
        assert "arXiv" in entry.paper
        assert set(entry.config.model_fields) >= {"method"}
        assert all(field.description for field in entry.config.model_fields.values()), name
        for preset in entry.presets.values():
            assert isinstance(preset, entry.config)
            assert preset.sites


def test_a_configuration_is_validated_by_its_method() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AnyMethod)
    for name in METHODS:
        config = adapter.validate_python({"method": name} | quick_settings(METHODS[name].config))
        assert isinstance(config, METHODS[name].config)
        assert adapter.validate_json(config.model_dump_json()) == config
    with pytest.raises(ValidationError, match="'locft_bf', 'ft_l', 'ft_m', 'ultraedit', 'stableedit', 'rome'"):
        adapter.validate_python({"method": "magic"})
    with pytest.raises(ValidationError, match="extra"):
        adapter.validate_python({"method": "ultraedit", "sites": ["1.down_proj"], "epochs": 3})
