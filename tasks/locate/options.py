"""Which sites are tried, and the choice of candidates for a model and a method."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from overedit.editing.methods.base import MethodConfig
from overedit.editing.model.anatomy import Anatomy

Part = Literal["layer", "attention", "mlp", "up_proj", "gate_proj", "down_proj", "o_proj", "q_proj", "k_proj", "v_proj"]

SEARCHED: tuple[Part, ...] = ("layer", "attention", "mlp", "up_proj", "gate_proj", "down_proj")
"""The parts of a layer that `parts: all` stands for (arXiv 2509.22072, section 3, and the gate)."""


class SiteOptions(BaseModel):
    """Which sites are tried: every part in every layer."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    layers: Literal["all"] | Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = "all"
    """The layers, 0 for the first; `all` of the model."""
    parts: Literal["all"] | Annotated[tuple[Part, ...], Field(min_length=1)] = "all"
    """The parts of a layer. `all` is those of `layer`, `attention`, `mlp`, `up_proj`, `gate_proj` and `down_proj` that
    the model has and the method edits; of a part that is named both must be true."""


def candidates(options: SiteOptions, anatomy: Anatomy, method: MethodConfig) -> tuple[str, ...]:
    """The sites to try, layer by layer.

    Args:
        options: Layers and parts.
        anatomy: The model's.
        method: Its sites are replaced.

    Raises:
        ValueError: The model has no such layer or part, or the method does not edit it, or no site is left.
    """
    layers = range(anatomy.num_layers) if options.layers == "all" else sorted(set(options.layers))
    found = []
    for layer in layers:
        anatomy.layer_name(layer)
        for part in SEARCHED if options.parts == "all" else dict.fromkeys(options.parts):
            site = f"{layer}.{part}"
            try:
                anatomy.site_parameters(site)
                method.at_site(site)
            except ValueError as error:
                if options.parts == "all":
                    continue
                raise ValueError(f"sites.parts: {error}") from error
            found.append(site)
    if not found:
        raise ValueError(f"sites: {method.method} edits none of the parts {', '.join(SEARCHED)} of this model")
    return tuple(found)
