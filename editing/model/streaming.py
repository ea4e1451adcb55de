"""Streamed weights: a model's frozen weights stay where they are stored and reach its device layer by layer.

A model that is larger than its device can still be edited there: the embedding, the head and the edited weights lie on
the device, all other weights of the decoder layers in host memory, on another GPU, or in the model's files. A layer's
weights are fetched when its forward pass begins. A backward pass needs them again: what autograd would keep of them is
replaced by a reference, and they are fetched once more. So at most `HELD_LAYERS` of them are on the device, whatever
the method does, and the arithmetic is that of the whole model, bit for bit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel

from overedit.editing.model.anatomy import Anatomy

Fetch = Callable[[str], torch.Tensor]
"""Parameter name -> its values on the model's device, in the parameter's dtype and shape."""

HELD_LAYERS = 2
"""Layers whose weights are on the device at once: where passes over one layer alternate with the next, none is fetched
twice."""


class _Place(NamedTuple):
    """Where a parameter hangs in the model."""

    module: nn.Module
    attribute: str
    name: str
    """Its full name."""


class _Reference(NamedTuple):
    """A view of a streamed weight, in place of the view itself."""

    layer: int
    name: str
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    """Elements from the weight's first."""


def stream_layers(model: PreTrainedModel, fetch: Fetch, *, sites: Collection[str]) -> None:
    """Stream the decoder layers' weights from now on; their parameters hold no memory afterwards (device `meta`).

    Args:
        model: With everything but the streamed weights on its device.
        fetch: Reads a weight; called whenever a layer runs whose weights are not on the device.
        sites: The sites that are edited, whose weights and biases stay as they are.
    """
    anatomy = Anatomy.of(model)
    names = set(streamed_parameters(anatomy, sites))
    layers = [model.get_submodule(anatomy.layer_name(index)) for index in range(anatomy.num_layers)]
    places = [
        [place for place in _places(layer, anatomy.layer_name(index)) if place.name in names]
        for index, layer in enumerate(layers)
    ]
    streamed = _Streamed([[place.name for place in of_layer] for of_layer in places], fetch)
    for index, layer in enumerate(layers):
        for place in places[index]:
            empty = torch.empty_like(place.module._parameters[place.attribute], device="meta")  # type: ignore[arg-type]
            place.module._parameters[place.attribute] = nn.Parameter(empty, requires_grad=False)
        layer.__dict__["forward"] = _StreamedForward(layer.forward, streamed, index, places[index])


def streamed_parameters(anatomy: Anatomy, sites: Collection[str]) -> tuple[str, ...]:
    """Names of all parameters of the decoder layers that are in no module of a site, in the model's order."""
    kept = tuple(f"{anatomy.site_module(site)}." for site in sites)
    inside = (name for name in anatomy.parameters if name.startswith(f"{anatomy.layers}."))
    return tuple(name for name in inside if not name.startswith(kept))


def is_streamed(model: PreTrainedModel) -> bool:
    """Whether a model's layers are streamed."""
    return isinstance(model.get_submodule(Anatomy.of(model).layer_name(0)).forward, _StreamedForward)


class _Streamed:
    """The weights of the layers that were used last."""

    def __init__(self, names: list[list[str]], fetch: Fetch) -> None:
        self._names, self._fetch = names, fetch
        self._held: OrderedDict[int, dict[str, torch.Tensor]] = OrderedDict()

    def weights(self, layer: int) -> dict[str, torch.Tensor]:
        """The weights of a layer on the device, by name."""
        if layer not in self._held:
            while len(self._held) >= HELD_LAYERS:
                self._held.popitem(last=False)
            self._held[layer] = {name: self._fetch(name) for name in self._names[layer]}
        self._held.move_to_end(layer)
        return self._held[layer]

    def refer(self, layer: int, tensor: torch.Tensor) -> torch.Tensor | _Reference:
        """What autograd keeps in place of a tensor: a reference, if it is a weight of this layer or a view of one."""
        for name, weight in self.weights(layer).items():
            offset = tensor.data_ptr() - weight.data_ptr()
            if 0 <= offset < weight.nbytes and tensor.dtype == weight.dtype:
                return _Reference(layer, name, tensor.size(), tensor.stride(), offset // weight.itemsize)
        return tensor

    def resolve(self, kept: torch.Tensor | _Reference) -> torch.Tensor:
        """The tensor that a reference names."""
        if isinstance(kept, torch.Tensor):
            return kept
        weight = self.weights(kept.layer)[kept.name]
        return weight.as_strided(kept.size, kept.stride, weight.storage_offset() + kept.offset)


class _StreamedForward:
    """The forward pass of a layer, with its weights on the device."""

    def __init__(self, forward: Callable[..., Any], streamed: _Streamed, layer: int, places: list[_Place]) -> None:
        self._forward, self._streamed, self._layer, self._places = forward, streamed, layer, places

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        weights = self._streamed.weights(self._layer)
        hooks = saved_tensors_hooks(partial(self._streamed.refer, self._layer), self._streamed.resolve)
        with _filled(self._places, weights), hooks:
            return self._forward(*args, **kwargs)


@contextmanager
def _filled(places: list[_Place], weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Put weights in the place of a layer's empty parameters."""
    empty = [place.module._parameters[place.attribute] for place in places]
    try:
        for place in places:
            place.module._parameters[place.attribute] = weights[place.name]  # type: ignore[assignment]
        yield
    finally:
        for place, parameter in zip(places, empty, strict=True):
            place.module._parameters[place.attribute] = parameter


def _places(layer: nn.Module, layer_name: str) -> Iterator[_Place]:
    """The places of all parameters of a layer."""
    for inner, module in layer.named_modules():
        for attribute in [name for name, parameter in module._parameters.items() if parameter is not None]:
            yield _Place(module, attribute, ".".join(part for part in (layer_name, inner, attribute) if part))
