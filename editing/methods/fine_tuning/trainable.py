"""What fine-tuning trains: the weights of a site, or adapters (`adapters.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

from overedit.editing.model.weights import Replacement, WeightUpdate


class Trainable(Protocol):
    """Values that an optimizer changes, and how the model runs with them."""

    @property
    def values(self) -> Mapping[str, torch.Tensor]:
        """Name -> trained values: float32 leaves of the graph, on the model's device."""

    @property
    def stand_ins(self) -> Mapping[nn.Module, Callable[..., Any]]:
        """The model's modules that run otherwise, each with the function called instead of its `forward`."""

    def parameters(self) -> dict[str, torch.Tensor]:
        """Parameter name -> tensor used in place of the model's own, attached to `values`."""

    def start(self) -> None:
        """Called when training starts from the present values with a fresh optimizer."""

    def penalty(self) -> torch.Tensor | None:
        """What is added to the loss of a step, a scalar of the values alone; None for nothing."""

    def stepped(self) -> None:
        """Called after each step of the optimizer, while the values still have their gradients."""

    def update(self) -> WeightUpdate:
        """The change of the model's weights; called once, after the last step."""


class SiteWeights:
    """Float32 copies of a site's parameters, optionally within a norm constraint."""

    stand_ins: Mapping[nn.Module, Callable[..., Any]] = MappingProxyType({})

    def __init__(self, model: PreTrainedModel, names: Sequence[str], norm_constraint: float | None) -> None:
        """Copy the parameters.

        Args:
            model: Only read.
            names: The parameters.
            norm_constraint: How far any weight may move from its value at `start`.
        """
        own = dict(model.named_parameters())
        self.values = {name: own[name].detach().float().clone().requires_grad_() for name in names}
        self._dtypes = {name: own[name].dtype for name in names}
        self._norm_constraint = norm_constraint

    def parameters(self) -> dict[str, torch.Tensor]:
        """The values in the dtypes of the model's parameters."""
        return {name: value.to(self._dtypes[name]) for name, value in self.values.items()}

    def start(self) -> None:
        """Make the present values the centre of the norm constraint."""
        if self._norm_constraint is not None:
            self._centres = {name: value.detach().clone() for name, value in self.values.items()}

    def penalty(self) -> None:
        """No penalty."""
        return

    @torch.no_grad()
    def stepped(self) -> None:
        """Clamp the values to the norm constraint."""
        if self._norm_constraint is None:
            return
        for name, value in self.values.items():
            centre = self._centres[name]
            value.clamp_(centre - self._norm_constraint, centre + self._norm_constraint)

    def update(self) -> WeightUpdate:
        """The trained values, in the dtype of the model's parameters."""
        return {name: Replacement(value.detach().to(self._dtypes[name]).clone()) for name, value in self.values.items()}
