"""Passes over a prefix tree: they read a site at the last token of each sequence, and start where earlier ones ended.

Shapes: S sequences, R rows of the tree, L packs of a pass, T rows of a pack, D hidden size, X width of what is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.hooks import Passage, first_member, frozen, standing_in, stop_forward_at
from overedit.editing.model.memory import OomHalver
from overedit.editing.model.partial_forward.batching import CPU_TOKENS, plan_batches
from overedit.editing.model.partial_forward.packing import additive_mask
from overedit.editing.model.partial_forward.prefix_cache import LayerInputs, start_pass
from overedit.editing.model.partial_forward.prefix_tree import TreePass, build_prefix_tree
from overedit.editing.model.streaming import is_streamed

_PACK_TOKENS = 128
"""More tokens repeat fewer prefixes and make attention slower; values from 64 to 384 differ little."""


class TreeForward:
    """Reads a model at the last token of each sequence; equal prefixes are computed once.

    `read` can keep the inputs of the site's layer. Later passes start there, as long as no parameter below that layer
    is written to.

    Args:
        model: Bit-identical after each reading.
        sequences: At least one, of at least one token each, for which `packing.takes_mask` holds.
        max_tokens: Tokens of a pass at most, padding included; on a CPU at most `CPU_TOKENS`. A longer sequence runs
            alone.
    """

    def __init__(self, model: PreTrainedModel, sequences: Sequence[tuple[int, ...]], *, max_tokens: int) -> None:
        self._model, self._anatomy = model, Anatomy.of(model)
        most = min(max_tokens, CPU_TOKENS) if model.device.type == "cpu" else max_tokens
        self._tree = build_prefix_tree(sequences, model.device, pack_tokens=min(most, _PACK_TOKENS))
        self._lengths = [len(pack) for pack in self._tree.packs]
        self._passes = plan_batches(self._lengths, most, padded=True)
        self._reached: LayerInputs | None = None
        self._versions: list[int] = []

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed in each layer, without padding."""
        return sum(self._lengths)

    @torch.no_grad()
    def read(self, site: str, *, entering: bool, keep: bool) -> torch.Tensor:
        """Read one site.

        Args:
            site: E.g. `5.down_proj`.
            entering: Read its input, not its output.
            keep: Keep the inputs of the site's layer: `num_tokens` x D in the model's dtype, and as much again while
                they are computed from those of an earlier layer.

        Returns:
            (S, X), in the model's dtype and on its device.

        Raises:
            torch.OutOfMemoryError: A single pack does not fit (a RuntimeError on a CPU).
        """
        layer, module = self._anatomy.site_layer(site), self._model.get_submodule(self._anatomy.site_module(site))
        if self._reached is not None and not self._holds(self._reached.layer, layer):
            self._reached = None
        with frozen(self._model):
            start = self._reached
            if keep or is_streamed(self._model):
                start = self._inputs_of(layer)
            if keep:
                self._reached, self._versions = start, self._versions_below(layer)

            def take(tree_pass: TreePass, passage: Passage) -> torch.Tensor:
                seen = passage.hidden if entering else first_member(passage.output)
                # a shared expert sees all tokens in one row
                return seen.reshape(tree_pass.rows_LT.numel(), -1)[tree_pass.last_S]

            rows_SX = torch.cat(list(self._run(module, start, take, entering=entering)))
        order = [s for members in self._tree.sequences for s in members]
        return rows_SX[torch.tensor(order, device=rows_SX.device).argsort()]

    def _holds(self, reached: int, layer: int) -> bool:
        """Whether passes to a layer may start at the one that was reached."""
        return reached <= layer and self._versions == self._versions_below(reached)

    def _versions_below(self, layer: int) -> list[int]:
        """How often each parameter that is in no layer from this one on was written to: torch counts it."""
        above = tuple(f"{self._anatomy.layer_name(index)}." for index in range(layer, self._anatomy.num_layers))
        names = [name for name in self._anatomy.parameters if not name.startswith(above)]
        return [self._model.get_parameter(name)._version for name in names]

    def _inputs_of(self, layer: int) -> LayerInputs | None:
        """The inputs of a layer, from those of the layer that was reached; None for the first: the embeddings."""
        found = self._reached
        first = 0 if found is None else found.layer
        # where weights are streamed, layer by layer: each is fetched once for all passes
        for index in range(first, layer) if is_streamed(self._model) else range(first, layer)[-1:]:
            gives_tuple = False

            def take(tree_pass: TreePass, passage: Passage) -> torch.Tensor:
                nonlocal gives_tuple
                gives_tuple = isinstance(passage.output, tuple)
                return first_member(passage.output)[tree_pass.real_LT]  # type: ignore[no-any-return]

            module = self._model.get_submodule(self._anatomy.layer_name(index))
            rows_RD = torch.cat(list(self._run(module, found, take, entering=False)))
            found = LayerInputs(index + 1, rows_RD, gives_tuple)
        return found

    def _run(
        self,
        module: nn.Module,
        start: LayerInputs | None,
        take: Callable[[TreePass, Passage], torch.Tensor],
        *,
        entering: bool,
    ) -> Iterator[torch.Tensor]:
        """Run all rows to a module, in their order; what is taken from each pass."""

        def run(packs: Sequence[int]) -> torch.Tensor:
            tree_pass = self._tree.lay_out(packs)
            begin = start_pass(self._model, self._tree.ids_R, tree_pass.rows_LT, start)
            mask_L1TT = additive_mask(tree_pass.seen_LTT, self._model.dtype)
            with standing_in(begin.stand_ins), stop_forward_at([module], entering=entering) as reached:
                self._model(
                    inputs_embeds=begin.hidden_BTD,
                    attention_mask=mask_L1TT,
                    position_ids=tree_pass.positions_LT,
                    use_cache=False,
                )
            return take(tree_pass, reached[module])

        for _, taken in OomHalver().run(self._passes, run, size=lambda packs: sum(self._lengths[n] for n in packs)):
            yield taken
