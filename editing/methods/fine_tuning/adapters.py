"""Adapters of the library peft on projections of a model, trained in place of their weights and then merged into them.

peft replaces modules and merges in place, so it is given copies: the model keeps its modules, and inside `tuning` the
projections run their adapted copies. A copy is a float32 Linear whatever the layout in the model, so tuners that know
no Conv1D have GPT-2 too. It is put in the model's dtype for training; the adapters stay in float32, as does the merge.

Shapes: I inputs and O outputs of a projection, R rank.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from overedit.editing.methods.fine_tuning.tuners import FLOAT32, tuner_config
from overedit.editing.model.anatomy import Anatomy, is_projection, stores_in_out
from overedit.editing.model.weights import Delta, LowRank, WeightUpdate

logger = logging.getLogger(__name__)

ADAPTER = "default"
"""Its name in peft."""


class Adapters:
    """Adapters on all projections of sites; the `Trainable` of the method `peft`."""

    def __init__(
        self, model: PreTrainedModel, sites: Sequence[str], tuner: str, options: Mapping[str, Any], *, total_steps: int
    ) -> None:
        """Create the adapters; torch's random numbers choose their first values.

        Args:
            model: Only read.
            sites: Projections, or parts whose projections are all adapted.
            tuner: One of `TUNERS`.
            options: Its options.
            total_steps: The steps of the training, for AdaLoRA's budget of ranks.

        Raises:
            ValueError: A site that the model lacks or that has no projections, or options that do not fit its sizes.
        """
        from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

        self._modules, feedforward = _projections(model, sites)
        config = tuner_config(tuner, options, targets=self._modules, feedforward=feedforward, total_steps=total_steps)
        root = _tree({name: _linear_copy(module) for name, module in self._modules.items()})
        try:
            with _warnings_logged():
                self.tuner = PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](root, config, ADAPTER)
        except (TypeError, ValueError) as error:
            raise ValueError(f"options: {tuner} does not fit {', '.join(self._modules)}: {error}") from error
        self._layers: dict[str, Any] = {name: root.get_submodule(name) for name in self._modules}
        for layer in self._layers.values():
            layer.get_base_layer().to(torch.float32 if tuner in FLOAT32 else model.dtype)
        self.tuner.train()
        self.values = {name: value for name, value in self.tuner.named_parameters() if value.requires_grad}
        assert all(value.is_contiguous() for value in self.values.values()), "a fused Adam misreads other strides"
        self.stand_ins = {module: _runner(self._layers[name]) for name, module in self._modules.items()}
        self._steps = 0

    def parameters(self) -> dict[str, torch.Tensor]:
        """None of the model's own: its projections run otherwise."""
        return {}

    def start(self) -> None:
        """Nothing to prepare."""

    def penalty(self) -> torch.Tensor | None:
        """AdaLoRA: how far its singular vectors are from orthogonal (arXiv 2303.10512, equation 4), with its weight."""
        weight = getattr(self.tuner.peft_config[ADAPTER], "orth_reg_weight", 0.0)
        if not weight:
            return None
        gaps = []
        for layer in self._layers.values():
            for rows_RX in (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER].T):
                gaps.append((rows_RX @ rows_RX.T - torch.eye(len(rows_RX), device=rows_RX.device)).norm())
        return weight * torch.stack(gaps).mean()

    def stepped(self) -> None:
        """AdaLoRA: take ranks from where they matter least."""
        self._steps += 1
        if hasattr(self.tuner, "update_and_allocate"):
            self.tuner.update_and_allocate(self._steps)

    @torch.no_grad()
    def update(self) -> WeightUpdate:
        """Merge the adapters: factors where the change is B A, otherwise the difference, in float32.

        A bias is part of it where a tuner scales a projection's output, bias included (IA3, RoAd), or trains it.
        """
        self.tuner.eval()
        update: WeightUpdate = {}
        for name, layer in self._layers.items():
            module, base = self._modules[name], layer.get_base_layer().float()
            before = _linear_copy(module)
            factors = _factors(layer) if torch.equal(base.weight, before.weight) else None
            with _warnings_logged():
                layer.merge()
            base, in_out = layer.get_base_layer(), stores_in_out(module)
            if factors is None:
                delta_OI = base.weight - before.weight
                update[f"{name}.weight"] = Delta((delta_OI.T if in_out else delta_OI).contiguous())
            else:
                update[f"{name}.weight"] = LowRank(factors.right.T, factors.left.T) if in_out else factors
            if before.bias is not None and not torch.equal(base.bias, before.bias):
                update[f"{name}.bias"] = Delta(base.bias - before.bias)
        return update


def _projections(model: PreTrainedModel, sites: Sequence[str]) -> tuple[dict[str, nn.Module], list[str]]:
    """The projections of sites by module name, each once, and the names of those that end an MLP."""
    anatomy = Anatomy.of(model)
    found: dict[str, nn.Module] = {}
    for site in sites:
        whole = anatomy.site_parameters(site)[0].removesuffix(".weight") if site.endswith("_proj") else None
        top = whole or anatomy.site_module(site)
        inside = model.get_submodule(top).named_modules(prefix=top)
        here = {name: module for name, module in inside if is_projection(module)}
        if not here:
            raise ValueError(f"sites: {site!r} has no projections that an adapter can be put on")
        found |= here
    last = anatomy.parts.get("down_proj")
    return found, [name for name in found if last is not None and name.endswith(f".{last}")]


def _linear_copy(module: nn.Module) -> nn.Linear:
    """A projection as a Linear with a float32 copy of its weight and bias."""
    weight, bias = module.get_parameter("weight").detach(), getattr(module, "bias", None)
    weight_OI = weight.T if stores_in_out(module) else weight
    outputs, inputs = weight_OI.shape
    copy = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    copy.weight = nn.Parameter(weight_OI.to(torch.float32, memory_format=torch.contiguous_format, copy=True), False)
    if bias is not None:
        copy.bias = nn.Parameter(bias.detach().to(torch.float32, copy=True), False)
    return copy


def _tree(modules: Mapping[str, nn.Module]) -> nn.Module:
    """Modules under their dotted names."""
    root = nn.Module()
    for name, module in modules.items():
        at = root
        *path, last = name.split(".")
        for part in path:
            if part not in at._modules:
                at.add_module(part, nn.Module())
            at = at.get_submodule(part)
        at.add_module(last, module)
    return root


def _runner(layer: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The forward function of an adapted copy, in the dtype in which it computes."""
    dtype = layer.get_base_layer().weight.dtype

    def run(inputs: torch.Tensor) -> torch.Tensor:
        with torch.sparse.check_sparse_tensor_invariants(False):  # FRoD's: torch warns where nobody has decided
            outputs: torch.Tensor = layer(inputs.to(dtype))
        return outputs.to(inputs.dtype)

    return run


def _factors(layer: Any) -> LowRank | None:
    """The change of LoRA and AdaLoRA as (O, R) and (R, I); None of other tuners, and of LoRA's variants (DoRA)."""
    if hasattr(layer, "lora_E"):
        scale = layer.scaling[ADAPTER] / (layer.ranknum[ADAPTER] + 1e-5)
        return LowRank(layer.lora_B[ADAPTER] * scale, layer.lora_A[ADAPTER] * layer.lora_E[ADAPTER])
    if type(layer).__module__ != "peft.tuners.lora.layer" or layer.lora_variant:
        return None
    return LowRank(layer.lora_B[ADAPTER].weight * layer.scaling[ADAPTER], layer.lora_A[ADAPTER].weight.clone())


@contextmanager
def _warnings_logged() -> Iterator[None]:
    """Log peft's warnings, which are advice to its callers."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
    for warning in said:
        logger.info("peft: %s", warning.message)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's random numbers inside the block; afterwards they go on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
