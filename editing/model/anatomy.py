"""Model anatomy: the module names of layers, projections, norms and head, by model family.

`FAMILIES` is the only code in which model families differ. A site, the weights that a method edits, is written
`<layer>.<part>`, e.g. `6.down_proj` or `23.layer`; this module alone turns it into module and parameter names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D


class UnknownFamilyError(ValueError):
    """A model whose family has no row in `FAMILIES`."""


class Family(NamedTuple):
    """Module names of one family, as in `named_modules()`."""

    layers: str
    """The list of decoder layers."""
    embedding: str
    """The token embedding."""
    final_norm: str
    """The norm before the head."""
    parts: Mapping[str, str]
    """Part of a site -> module within a layer; the empty name is the layer itself."""
    head: str = "lm_head"
    """The projection to the vocabulary."""


_ATTENTION = {part: f"self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "o_proj")}
_BLOCKS = {"layer": "", "attention": "self_attn", "mlp": "mlp"}
_GATED = {part: f"mlp.{part}" for part in ("gate_proj", "up_proj", "down_proj")}
_SHARED = {part: f"mlp.shared_expert.{part}" for part in ("gate_proj", "up_proj", "down_proj")}

_LLAMA = Family("model.layers", "model.embed_tokens", "model.norm", _BLOCKS | _ATTENTION | _GATED)
_FUSED = {"o_proj": "self_attn.o_proj", "down_proj": "mlp.down_proj"}
_PHI = {part: f"self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj")} | {"o_proj": "self_attn.dense"}
_GPT2 = {"o_proj": "attn.c_proj", "up_proj": "mlp.c_fc", "down_proj": "mlp.c_proj"}
_GPTJ = {part: f"attn.{part}" for part in ("q_proj", "k_proj", "v_proj")} | {"o_proj": "attn.out_proj"}
_GPTJ_MLP = {"up_proj": "mlp.fc_in", "down_proj": "mlp.fc_out"}
_NEOX = {"o_proj": "attention.dense", "up_proj": "mlp.dense_h_to_4h", "down_proj": "mlp.dense_4h_to_h"}

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {  # config.model_type -> where things are
        "llama": _LLAMA,
        "mistral": _LLAMA,
        "qwen2": _LLAMA,
        "qwen3": _LLAMA,
        "gemma": _LLAMA,
        "gemma2": _LLAMA,
        "gemma3_text": _LLAMA,
        # gate and up, and query, key and value, are one matrix each: only separate projections have a name
        "phi3": _LLAMA._replace(parts=_BLOCKS | _FUSED),
        "phi": Family(
            "model.layers",
            "model.embed_tokens",
            "model.final_layernorm",
            _BLOCKS | _PHI | {"up_proj": "mlp.fc1", "down_proj": "mlp.fc2"},
        ),
        # routed experts are one three-dimensional parameter, without a module of their own per projection
        "mixtral": _LLAMA._replace(parts=_BLOCKS | _ATTENTION),
        "qwen3_moe": _LLAMA._replace(parts=_BLOCKS | _ATTENTION),
        "qwen2_moe": _LLAMA._replace(parts=_BLOCKS | _ATTENTION | _SHARED),
        "gpt2": Family(
            "transformer.h",
            "transformer.wte",
            "transformer.ln_f",
            {"layer": "", "attention": "attn", "mlp": "mlp"} | _GPT2,
        ),
        "gptj": Family(
            "transformer.h",
            "transformer.wte",
            "transformer.ln_f",
            {"layer": "", "attention": "attn", "mlp": "mlp"} | _GPTJ | _GPTJ_MLP,
        ),
        "gpt_neox": Family(
            "gpt_neox.layers",
            "gpt_neox.embed_in",
            "gpt_neox.final_layer_norm",
            {"layer": "", "attention": "attention", "mlp": "mlp"} | _NEOX,
        ),
    }
)
"""Every known family by its configuration's `model_type`."""


@dataclass(frozen=True)
class Anatomy:
    """One model's named parts."""

    family: str
    num_layers: int
    embedding: str
    """Module name of the token embedding."""
    final_norm: str
    """Module name of the norm before the head."""
    head: str
    """Module name of the projection to the vocabulary."""
    layers: str
    """Module name of the list of decoder layers."""
    parts: Mapping[str, str]
    """Part of a site -> module name within a layer."""
    parameters: tuple[str, ...]
    """Names of all parameters of the model."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> Anatomy:
        """Look up a model's family by its configuration's `model_type`.

        Raises:
            UnknownFamilyError: The family has no row in `FAMILIES`.
        """
        name = model.config.model_type
        if name not in FAMILIES:
            raise UnknownFamilyError(
                f"model family {name!r} is not known; known: {', '.join(sorted(FAMILIES))}. To add it, give FAMILIES "
                "in editing/model/anatomy.py a row that names its layers, embedding, final norm and projections"
            )
        family = FAMILIES[name]
        names = tuple(name for name, _ in model.named_parameters(remove_duplicate=False))
        layers = model.get_submodule(family.layers)
        assert isinstance(layers, nn.ModuleList)
        return cls(
            family=name,
            num_layers=len(layers),
            embedding=family.embedding,
            final_norm=family.final_norm,
            head=family.head,
            layers=family.layers,
            parts=family.parts,
            parameters=names,
        )

    @property
    def backbone(self) -> str:
        """Module name of the model without its head."""
        return self.layers.rpartition(".")[0]

    def layer_name(self, index: int) -> str:
        """Module name of a decoder layer.

        Raises:
            ValueError: The model has no such layer.
        """
        if not 0 <= index < self.num_layers:
            raise ValueError(f"layer {index} does not exist: the model has layers 0 to {self.num_layers - 1}")
        return f"{self.layers}.{index}"

    def site_layer(self, site: str) -> int:
        """The layer of a site.

        Raises:
            ValueError: The site is not of the form `<layer>.<part>`, or names a layer or part that the model lacks.
        """
        return self._split(site)[0]

    def site_module(self, site: str) -> str:
        """Module name of a site, e.g. `6.down_proj` -> `model.layers.6.mlp.down_proj`.

        Raises:
            ValueError: As `site_layer`.
        """
        layer, part = self._split(site)
        return ".".join(name for name in (self.layer_name(layer), self.parts[part]) if name)

    def site_parameters(self, site: str) -> tuple[str, ...]:
        """Exact parameter names of a site: the weight of a projection, every parameter of a larger part.

        Raises:
            ValueError: As `site_layer`, or this layer has no such module (a layer without a shared expert).
        """
        module = self.site_module(site)
        inside = tuple(name for name in self.parameters if name.startswith(f"{module}."))
        found = tuple(name for name in inside if name == f"{module}.weight") if site.endswith("_proj") else inside
        if not found:
            raise ValueError(f"site {site!r}: this model's {self.layer_name(self.site_layer(site))} has no {module}")
        return found

    def _split(self, site: str) -> tuple[int, str]:
        layer, _, part = site.partition(".")
        if not layer.isdecimal():
            raise ValueError(f"site {site!r} is not of the form <layer>.<part>, e.g. 6.down_proj")
        if part not in self.parts:
            raise ValueError(f"site {site!r}: models of family {self.family} have the parts {', '.join(self.parts)}")
        self.layer_name(int(layer))
        return int(layer), part


def expanded(site: object) -> list[object]:
    """The sites that `4-8.down_proj` stands for, that part of layers 4 to 8; anything else as it is.

    Raises:
        ValueError: The first layer comes after the last.
    """
    found = re.fullmatch(r"(\d+)-(\d+)\.(.+)", site) if isinstance(site, str) else None
    if found is None:
        return [site]
    first, last = int(found[1]), int(found[2])
    if first > last:
        raise ValueError(f"site {site!r}: the first layer comes after the last; accepted: <first>-<last>.<part>")
    return [f"{layer}.{found[3]}" for layer in range(first, last + 1)]


def context_length(config: PreTrainedConfig) -> int | None:
    """The longest sequence that a model's positions allow, in tokens; None where its configuration does not say."""
    length = getattr(config, "max_position_embeddings", None)
    return None if length is None else int(length)


def is_projection(module: nn.Module) -> bool:
    """Whether a module is a projection, whose orientation `stores_in_out` tells."""
    return isinstance(module, nn.Linear | Conv1D)


def stores_in_out(module: nn.Module) -> bool:
    """Whether a projection stores its weight as (in, out), as GPT-2's Conv1D does, and not as (out, in).

    Raises:
        ValueError: The module is not a projection.
    """
    if not is_projection(module):
        raise ValueError(f"{type(module).__name__} is not a projection: expected Linear or Conv1D")
    return isinstance(module, Conv1D)
