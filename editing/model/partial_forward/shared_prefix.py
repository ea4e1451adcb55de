"""The prefixes of several sites in one pass over the layers, for a search among sites (section 3 of arXiv 2509.22072).

The prefix of a site in layer l is the output of layers 0 to l - 1, and that of a site in a later layer begins with the
same layers. Sites are asked for in the order of their layers: the inputs of the layer reached so far are kept, and for
the next site only the layers in between are run. So all sites of a model of L layers cost one pass over the layers, and
one layer more for each `down_proj` (see `prefix_cache`), where separate prefixes cost l layers each.

Each prefix has the bits of `compute_prefix`: the same sequences share a pass, and padding, which has other activations
here, is on the right, where no token sees it.

Memory: the inputs of one layer (R tokens x D hidden, in the model's dtype), twice while layers are run; a site whose
training starts at its layer uses them as they are, without a copy. Where they exceed `max_bytes` nothing is shared.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.partial_forward.prefix_cache import LayerInputs, Prefix, compute_prefix
from overedit.editing.model.streaming import is_streamed


class SharedPrefix:
    """Computes prefixes as `compute_prefix` does, each from the layer that the last one reached.

    The model must have its own weights at every call: an edit of one site is undone before the next site is asked for.
    Other sequences, or a site in an earlier layer, start again from the embedding.
    """

    def __init__(self) -> None:
        self._sequences: list[tuple[int, ...]] = []
        self._held: LayerInputs | None = None

    def __call__(
        self,
        model: PreTrainedModel,
        site: str,
        sequences: Sequence[Sequence[int]],
        *,
        max_bytes: int,
        max_tokens_per_pass: int,
    ) -> Prefix:
        """The prefix of a site; see `compute_prefix`."""
        layer = Anatomy.of(model).site_layer(site)
        asked = [tuple(ids) for ids in sequences]
        if asked != self._sequences or (self._held is not None and self._held.layer > layer):
            self._sequences, self._held = asked, None
        reached_layer = -1 if self._held is None else self._held.layer
        # where weights are streamed, layer by layer: each is fetched once for all passes
        for index in range(reached_layer + 1, layer + 1) if is_streamed(model) else [layer] * (reached_layer < layer):
            reached = compute_prefix(
                model,
                f"{index}.layer",
                sequences,
                max_bytes=max_bytes,
                max_tokens_per_pass=max_tokens_per_pass,
                below=self._held,
            )
            if reached.inputs_RX is None:
                return reached
            self._held = LayerInputs(index, reached.inputs_RX, reached.gives_tuple)
        return compute_prefix(
            model,
            site,
            sequences,
            max_bytes=max_bytes,
            max_tokens_per_pass=max_tokens_per_pass,
            below=self._held,
        )
