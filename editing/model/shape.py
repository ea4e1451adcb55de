"""A model's shape, and what its parts take: operations and bytes, counted without its weights.

A product of a matrix of P values with one token's vector takes 2 P floating-point operations; attention's own products,
which grow with the square of the length, norms and activation functions are left out (below 2 % for requests of some
hundred tokens). Routed experts are all counted, so a mixture of experts takes less than is said here.

Shapes: D hidden size, F MLP inner size, V vocabulary.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self

from transformers import PreTrainedModel

from overedit.editing.model.anatomy import Anatomy, stores_in_out
from overedit.editing.model.streaming import HELD_LAYERS, streamed_parameters

_ROWS_KEPT, _INNER_ROWS_KEPT = 12, 4
"""Values kept for the backward pass through one layer, per token: 12 D and 4 F (inputs of the projections and of the
norms, the latter in float32 as well; gate, up, their activation and product)."""


class SiteShape(NamedTuple):
    """One projection."""

    layer: int
    inputs: int
    outputs: int


class ModelShape(NamedTuple):
    """Sizes of a model's parts."""

    anatomy: Anatomy
    sizes: Mapping[str, int]
    """Parameter name -> its number of values; a tied parameter has both names."""
    num_values: int
    """Values of all parameters, each once."""
    itemsize: int
    """Bytes of a value in the dtype that the model is edited in."""
    hidden: int
    vocabulary: int
    layer_values: int
    """Values of one layer's matrices, the mean over the layers."""
    inner: int
    """The widest input or output of a layer's matrices."""
    projections: Mapping[str, SiteShape]
    """Site -> the shape of its projection, for every site that is a single one."""

    @classmethod
    def of(cls, model: PreTrainedModel, *, itemsize: int) -> Self:
        """Count a model's parts; it may be on the meta device.

        Raises:
            UnknownFamilyError: As `Anatomy.of`.
        """
        anatomy = Anatomy.of(model)
        shapes = {name: tuple(value.shape) for name, value in model.named_parameters(remove_duplicate=False)}
        inside = [shape for name, shape in shapes.items() if name.startswith(f"{anatomy.layers}.") and len(shape) > 1]
        vocabulary, hidden = shapes[f"{anatomy.embedding}.weight"]
        return cls(
            anatomy=anatomy,
            sizes={name: math.prod(shape) for name, shape in shapes.items()},
            num_values=sum(value.numel() for value in model.parameters()),
            itemsize=itemsize,
            hidden=hidden,
            vocabulary=vocabulary,
            layer_values=sum(map(math.prod, inside)) // anatomy.num_layers,
            inner=max(max(shape[-2:]) for shape in inside),
            projections=_projections(model, anatomy),
        )

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""
        return self.anatomy.num_layers

    @property
    def num_bytes(self) -> int:
        """Bytes of all weights in the dtype that the model is edited in."""
        return self.num_values * self.itemsize

    def names(self, sites: Iterable[str]) -> tuple[str, ...]:
        """The parameters of sites, each once; raises ValueError as `Anatomy.site_parameters`."""
        return tuple(dict.fromkeys(name for site in sites for name in self.anatomy.site_parameters(site)))

    def values(self, sites: Iterable[str]) -> int:
        """Values of the parameters of sites; raises ValueError as `Anatomy.site_parameters`."""
        return sum(self.sizes[name] for name in self.names(sites))

    def largest(self, sites: Iterable[str]) -> int:
        """Values of the largest parameter of sites."""
        return max(self.sizes[name] for name in self.names(sites))

    def resident_bytes(self, sites: Iterable[str]) -> int:
        """Bytes of the weights that are on the device at once where the layers are streamed; see `streaming`."""
        names = streamed_parameters(self.anatomy, tuple(sites))
        of_layers: Counter[str] = Counter()
        for name in names:
            of_layers[name.removeprefix(f"{self.anatomy.layers}.").partition(".")[0]] += self.sizes[name]
        held = sum(size for _, size in of_layers.most_common(HELD_LAYERS))
        return (self.num_values - of_layers.total() + held) * self.itemsize

    def first_layer(self, sites: Iterable[str]) -> int:
        """The lowest layer that sites are in."""
        return min(self.anatomy.site_layer(site) for site in sites)

    def forward(self, num_tokens: float, *, layers: int | None = None) -> float:
        """Operations of a forward pass through so many layers (all by default): 2 x values x tokens.

        A backward pass to the activations alone takes the same again, and the gradients of the weights once more.
        """
        return 2.0 * self.layer_values * (self.num_layers if layers is None else layers) * num_tokens

    def head(self, num_tokens: float) -> float:
        """Operations of the projection to the vocabulary: 2 D V for each token at which it is read."""
        return 2.0 * self.hidden * self.vocabulary * num_tokens

    def kept_bytes(self, num_tokens: float, *, layers: int) -> float:
        """Bytes of the activations that a backward pass through so many layers needs."""
        values = _ROWS_KEPT * self.hidden + _INNER_ROWS_KEPT * self.inner
        return values * self.itemsize * layers * num_tokens

    def passing_bytes(self, num_tokens: float) -> float:
        """Bytes of a forward pass without a backward one: one layer's activations."""
        return self.kept_bytes(num_tokens, layers=1)

    def logits_bytes(self, num_tokens: float) -> float:
        """Bytes of logits read at so many tokens: in the model's dtype, in float32, and their gradient."""
        return self.vocabulary * (self.itemsize + 8) * num_tokens


def _projections(model: PreTrainedModel, anatomy: Anatomy) -> dict[str, SiteShape]:
    found: dict[str, SiteShape] = {}
    for layer in range(anatomy.num_layers):
        for part in anatomy.parts:
            site = f"{layer}.{part}"
            if not part.endswith("_proj"):
                continue
            try:
                module = model.get_submodule(anatomy.site_module(site))
            except AttributeError:  # a layer without a shared expert
                continue
            rows, columns = module.get_parameter("weight").shape
            found[site] = SiteShape(layer, *((rows, columns) if stores_in_out(module) else (columns, rows)))
    return found
