"""A model's shape: values and bytes are those of the real model, and operations those that torch dispatches."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.shape import ModelShape
from tests.support.tiny_models import SETTINGS, tiny


@pytest.mark.parametrize("family", sorted(SETTINGS))
def test_values_are_those_of_the_model(family: str) -> None:
    model = tiny(family)
    shape = ModelShape.of(model, itemsize=4)
    assert shape.num_bytes == sum(parameter.nbytes for parameter in model.parameters())
    assert (shape.num_layers, shape.hidden) == (3, 32)
    own = dict(model.named_parameters(remove_duplicate=False))
    anatomy = Anatomy.of(model)
    for site in ("1.layer", "2.o_proj" if family != "mixtral" else "2.q_proj"):
        assert shape.values([site]) == sum(own[name].numel() for name in anatomy.site_parameters(site))
    assert shape.values(["1.layer", "1.layer"]) == shape.values(["1.layer"]), "a parameter counts once"


@pytest.mark.parametrize(("family", "site"), [("llama", "1.down_proj"), ("gpt2", "1.down_proj")])
def test_a_projection_has_its_inputs_and_outputs_whatever_the_layout(family: str, site: str) -> None:
    shape = ModelShape.of(tiny(family), itemsize=4)
    assert shape.projections[site] == (1, shape.inner, 32)
    assert "1.mlp" not in shape.projections


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_operations_are_those_that_are_dispatched(family: str) -> None:
    """But for attention's own products, 4 T^2 D a layer, which are left out."""
    model, length = tiny(family), 5
    model.config._attn_implementation = "eager"
    shape = ModelShape.of(model, itemsize=4)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model(input_ids=torch.ones(2, length, dtype=torch.int64))
    attention = 2 * 3 * 4 * length**2 * 32
    expected = shape.forward(2 * length) + shape.head(2 * length)
    assert counted.get_total_flops() == pytest.approx(expected + attention, rel=0.01)
    assert shape.forward(2 * length, layers=1) == pytest.approx(shape.forward(2 * length) / 3)


def test_the_shape_needs_no_weights() -> None:
    with torch.device("meta"):
        empty = type(tiny("llama"))(tiny("llama").config)
    assert ModelShape.of(empty, itemsize=4) == ModelShape.of(tiny("llama"), itemsize=4)
