"""The candidates: layer by layer, those that the model has and the method edits."""

from __future__ import annotations

from typing import Any

import pytest

from overedit.editing.model.anatomy import Anatomy
from overedit.tasks.locate.options import SiteOptions, candidates
from tests.support.quick_methods import config_of
from tests.support.tiny_models import tiny


def found(family: str, method: str, **options: Any) -> tuple[str, ...]:
    return candidates(SiteOptions.model_validate(options), Anatomy.of(tiny(family)), config_of(method))


def test_all_is_every_part_of_every_layer() -> None:
    parts = ("layer", "attention", "mlp", "up_proj", "gate_proj", "down_proj")
    assert found("llama", "locft_bf") == tuple(f"{layer}.{part}" for layer in range(3) for part in parts)


@pytest.mark.parametrize(
    ("family", "method", "parts"),
    [
        ("gpt2", "locft_bf", ("layer", "attention", "mlp", "up_proj", "down_proj")),
        ("llama", "ultraedit", ("up_proj", "gate_proj", "down_proj")),
        ("llama", "memit", ("down_proj",)),
        ("mixtral", "locft_bf", ("layer", "attention")),
    ],
)
def test_all_leaves_out_what_the_model_lacks_or_the_method_does_not_edit(
    family: str, method: str, parts: tuple[str, ...]
) -> None:
    known = found(family, method, layers=[1])
    assert tuple(site.removeprefix("1.") for site in known if site != "1.mlp" or "mlp" in parts) == parts


def test_what_is_named_is_taken_once_and_in_order() -> None:
    assert found("llama", "locft_bf", layers=[2, 0, 2], parts=["o_proj", "mlp"]) == (
        "0.o_proj",
        "0.mlp",
        "2.o_proj",
        "2.mlp",
    )


@pytest.mark.parametrize(
    ("family", "method", "options", "words"),
    [
        ("gpt2", "locft_bf", {"parts": ["gate_proj"]}, "sites.parts: site '0.gate_proj': models of family gpt2 have"),
        ("llama", "ultraedit", {"parts": ["mlp"]}, "sites.parts: sites: ultraedit edits single projections"),
        ("llama", "locft_bf", {"layers": [3]}, "layer 3 does not exist: the model has layers 0 to 2"),
        ("mixtral", "memit", {}, "sites: memit edits none of the parts"),
    ],
)
def test_what_cannot_be_a_site(family: str, method: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        found(family, method, **options)
