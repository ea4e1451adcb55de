"""Names of layers, parts and parameters, on a tiny model of every family."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from overedit.editing.model.anatomy import FAMILIES, Anatomy, UnknownFamilyError, stores_in_out
from tests.support.tiny_models import SETTINGS, tiny


def test_every_family_has_a_tiny_model() -> None:
    assert set(SETTINGS) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_names_exist(family: str) -> None:
    model = tiny(family)
    anatomy = Anatomy.of(model)
    assert anatomy.num_layers == 3
    assert model.get_submodule(anatomy.embedding) is model.get_input_embeddings()
    assert model.get_submodule(anatomy.head) is model.get_output_embeddings()
    assert model.get_submodule(anatomy.backbone) is model.base_model
    assert model.get_submodule(anatomy.final_norm).weight.shape == (32,)
    names = dict(model.named_parameters())
    for part in anatomy.parts:
        for layer in range(3):
            found = anatomy.site_parameters(f"{layer}.{part}")
            assert found
            assert set(found) <= set(names)
            assert all(name.startswith(f"{anatomy.layers}.{layer}.") for name in found)
    assert {"layer", "attention", "mlp", "o_proj"} <= set(anatomy.parts)


@pytest.mark.parametrize("family", [family for family in FAMILIES if "down_proj" in FAMILIES[family].parts])
def test_projections_have_the_right_ends(family: str) -> None:
    model = tiny(family)
    anatomy = Anatomy.of(model)
    module = model.get_submodule(anatomy.site_module("1.down_proj"))
    assert stores_in_out(module) == (family == "gpt2")
    width_out, width_in = module.weight.shape[::-1] if stores_in_out(module) else module.weight.shape
    assert width_out == 32
    assert module(torch.zeros(1, width_in)).shape == (1, 32)


def test_sites_of_llama() -> None:
    anatomy = Anatomy.of(tiny("llama"))
    assert anatomy.layer_name(2) == "model.layers.2"
    assert anatomy.site_module("1.down_proj") == "model.layers.1.mlp.down_proj"
    assert anatomy.site_parameters("1.down_proj") == ("model.layers.1.mlp.down_proj.weight",)
    assert anatomy.site_module("2.layer") == "model.layers.2"
    assert len(anatomy.site_parameters("2.layer")) == 9
    assert anatomy.site_layer("2.attention") == 2
    assert anatomy.site_parameters("0.mlp") == tuple(
        f"model.layers.0.mlp.{part}_proj.weight" for part in ("gate", "up", "down")
    )


def test_projections_of_gpt2_are_the_weight_without_the_bias() -> None:
    anatomy = Anatomy.of(tiny("gpt2"))
    assert anatomy.site_parameters("0.down_proj") == ("transformer.h.0.mlp.c_proj.weight",)
    assert anatomy.site_parameters("0.up_proj") == ("transformer.h.0.mlp.c_fc.weight",)
    assert "transformer.h.0.mlp.c_proj.bias" in anatomy.site_parameters("0.mlp")


def test_layer_2_is_not_layer_20() -> None:
    anatomy = Anatomy.of(tiny("llama", num_hidden_layers=21))
    assert all(name.startswith("model.layers.2.") for name in anatomy.site_parameters("2.layer"))
    assert len(anatomy.site_parameters("2.layer")) == len(anatomy.site_parameters("20.layer")) == 9


def test_unknown_family_says_how_to_add_it() -> None:
    model = tiny("llama")
    model.config.model_type = "mamba9"
    with pytest.raises(
        UnknownFamilyError, match=r"'mamba9' is not known; known: .*llama.*FAMILIES in editing/model/anatomy"
    ):
        Anatomy.of(model)


@pytest.mark.parametrize(
    ("family", "site", "message"),
    [
        ("llama", "3.down_proj", "layer 3 does not exist: the model has layers 0 to 2"),
        ("llama", "down_proj", "'down_proj' is not of the form <layer>.<part>"),
        ("llama", "-1.mlp", "not of the form"),
        ("llama", "1.norm", "'1.norm': models of family llama have the parts layer, attention, mlp, q_proj"),
        ("gpt2", "1.gate_proj", "family gpt2 have the parts layer, attention, mlp, o_proj, up_proj, down_proj"),
        ("phi3", "1.gate_proj", "family phi3 have the parts layer, attention, mlp, o_proj, down_proj"),
    ],
)
def test_wrong_sites(family: str, site: str, message: str) -> None:
    anatomy = Anatomy.of(tiny(family))
    for resolve in (anatomy.site_layer, anatomy.site_module, anatomy.site_parameters):
        with pytest.raises(ValueError, match=message):
            resolve(site)


def test_a_layer_without_a_shared_expert() -> None:
    anatomy = Anatomy.of(tiny("qwen2_moe", mlp_only_layers=[1]))
    assert anatomy.site_parameters("0.down_proj") == ("model.layers.0.mlp.shared_expert.down_proj.weight",)
    with pytest.raises(ValueError, match=r"'1.down_proj': this model's model.layers.1 has no .*shared_expert"):
        anatomy.site_parameters("1.down_proj")


def test_orientation_goes_by_module_type_even_where_the_matrix_is_square() -> None:
    assert stores_in_out(Conv1D(8, 8))
    assert not stores_in_out(nn.Linear(8, 8))
    with pytest.raises(ValueError, match="Embedding is not a projection"):
        stores_in_out(nn.Embedding(8, 8))
