"""The shifted suffix: the part of a forward pass that changes when one hidden state of each sequence is shifted.

The output of a site (a layer's MLP, or the layer) is shifted at one position of each sequence. Earlier positions do not
change at any layer, because attention is causal, and layers below the site do not change at all. Both are computed
once: the keys and values of the earlier tokens above the site, and the inputs of the layers above for the others. A
pass runs the tokens from the shifted position on, through the layers above the site. In the first of these layers only
the shifted token's query, key and value are recomputed; the queries and output of the last attention, the last MLP and
the head are computed only where logits are read. The backward pass ends at the shifts; no parameter gets a gradient.

An MLP whose output is not simply added to the rest of its layer's output (tested on the model) is shifted inside it.

Shapes: B sequences, R tokens of all sequences, L packs (see `packing`), S tokens of a pack from the shifted positions
on, U positions whose logits are read, D hidden size, H heads, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import Cache, DynamicLayer, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.hooks import standing_in, traced
from overedit.editing.model.partial_forward.batching import CPU_TOKENS
from overedit.editing.model.partial_forward.packing import (
    PackedTokens,
    check_attention,
    lay_out,
    mask_of,
    pass_on,
    plan_packs,
    run_prompts,
)
from overedit.editing.model.partial_forward.prefix_cache import look_at_layer
from overedit.editing.model.tokenization import MarkedSequence, TokenPair

_PACK_TOKENS = 96
"""More tokens leave less padding and make attention slower; values from 64 to 192 differ little."""
_MOST_TOKENS = 32768
"""More tokens are no faster on any device."""


class PackedPass(NamedTuple):
    """The inputs of a pass over some sequences; what is per sequence is in the order in which they were chosen."""

    inputs: dict[str, Any]
    """Cache, attention mask and position ids, as arguments of the model."""
    entering_LSD: torch.Tensor
    """Unshifted input of the first layer that runs."""
    site_LSD: torch.Tensor
    """The output to be shifted: `entering_LSD` itself, or that of the site's module."""
    projected: dict[nn.Module, torch.Tensor]
    """The next attention's projections into queries, keys and values -> their unshifted outputs, (L, S, width)."""
    shifted_B: torch.Tensor
    """The shifted positions, as flat indices into L * S."""
    reads_U: torch.Tensor
    """Flat indices of the read positions: one per target token; without a target, the shifted position."""
    num_tokens: int
    """Tokens of the pass, without padding."""


class ShiftedSuffix:
    """Runs the part of a model that depends on shifts of a site's output, for given sequences.

    Args:
        model: In evaluation mode and without gradient flags (see `hooks.frozen`) as long as this is used.
        site: `<layer>.mlp` or `<layer>.layer`.
        sequences: At least one; each is shifted at its marked position.

    Raises:
        ValueError: Another kind of site; attention that accepts no four-dimensional mask (flash attention); or a
            sequence longer than the model's sliding window.
    """

    def __init__(self, model: PreTrainedModel, site: str, sequences: Sequence[MarkedSequence]) -> None:
        _check(model, site, sequences)
        self._model, self._anatomy, self._sequences = model, Anatomy.of(model), sequences
        self._layer = self._anatomy.site_layer(site)
        self._site = self._anatomy.site_module(site)
        names = [self._anatomy.layer_name(index) for index in range(self._anatomy.num_layers)]
        self._layers = [model.get_submodule(name) for name in names]
        module = model.get_submodule(self._site)
        layer = self._layers[self._layer]
        ids_1T = torch.tensor([sequences[0].ids], device=model.device)
        look = look_at_layer(model, layer, None if module is layer else module, ids_1T)
        self._gives_tuple = look.gives_tuple
        self._inside = module is not layer and not look.inner_width
        above = names[self._layer + 1 : self._layer + 2]
        self._projections = [name for layer_name in above for name in self._projections_of(layer_name)]
        self._pairs = [TokenPair(s.ids[: s.position + 1], (*s.ids[s.position + 1 :], 0)) for s in sequences]
        self._keep()

    @property
    def site_BD(self) -> torch.Tensor:
        """The site's unshifted output at each sequence's marked position, in the model's dtype."""
        return self._site_RD[torch.tensor([self._after[b] for b in range(len(self._sequences))])]

    def num_tokens(self, chosen: Sequence[int]) -> int:
        """Tokens of a pass over some sequences, without padding."""
        return sum(len(self._pairs[b].target) for b in chosen)

    def pack(self, chosen: Sequence[int]) -> PackedPass:
        """Prepare the inputs of a pass over the chosen sequences."""
        packs = [[chosen[k] for k in pack] for pack in plan_packs([self._pairs[b] for b in chosen], _PACK_TOKENS)]
        device, sequences = self._model.device, self._sequences
        after = lay_out([[(b, self._rows_after(b), sequences[b].position) for b in pack] for pack in packs], device)
        parts = [after]
        inputs: dict[str, Any] = {"position_ids": after.positions_LT, "use_cache": False}
        if any(sequences[b].position for b in chosen):
            before = lay_out([[(b, self._rows_before(b), 0) for b in pack] for pack in packs], device)
            parts = [before, after]
            inputs |= {"past_key_values": self._cache(before), "use_cache": True}
        inputs["attention_mask"] = mask_of(after, parts, self._model.dtype)
        entering_LSD = self._entering_RD[after.ids_LT]
        site_LSD = self._site_RD[after.ids_LT] if self._inside else entering_LSD
        shifted: dict[int, int] = {}
        width = after.ids_LT.shape[1]
        for number, pack in enumerate(packs):
            lengths = (len(self._pairs[b].target) for b in pack)
            shifted |= dict(zip(pack, accumulate(lengths, initial=number * width), strict=False))
        reads = [shifted[b] + step for b in chosen for step in _reads(sequences[b])]
        return PackedPass(
            inputs,
            entering_LSD,
            site_LSD,
            {module: rows_RX[after.ids_LT] for module, rows_RX in self._projected.items()},
            torch.tensor([shifted[b] for b in chosen], device=device),
            torch.tensor(reads, device=device),
            self.num_tokens(chosen),
        )

    def logits_UV(self, packed: PackedPass, shifts_BD: torch.Tensor) -> torch.Tensor:
        """Logits at the read positions; gradients flow to the shifts, and sums are rounded once to the model's dtype.

        Args:
            packed: The result of `pack`.
            shifts_BD: Added to the site's output at each sequence's marked position; float32 or finer.
        """
        flat = packed.site_LSD.flatten(0, 1)
        moved_BD = (flat[packed.shifted_B].to(shifts_BD.dtype) + shifts_BD).to(flat.dtype)
        shifted_LSD = flat.index_copy(0, packed.shifted_B, moved_BD).view_as(packed.site_LSD)
        with torch.enable_grad(), standing_in(self._stand_ins(packed, shifted_LSD)):
            logits_UV: torch.Tensor = self._model(inputs_embeds=packed.entering_LSD, **packed.inputs).logits[0]
            return logits_UV

    def _stand_ins(self, packed: PackedPass, shifted_LSD: torch.Tensor) -> dict[nn.Module, Callable[..., Any]]:
        """Replacement forwards of a pass; the layers that do not run return the input of the first one that does."""
        anatomy, last = self._anatomy, self._anatomy.num_layers - 1
        head = self._model.get_submodule(anatomy.head)
        parts = [part for part in ("q_proj", "o_proj", "mlp") if part in anatomy.parts]
        partly = [self._model.get_submodule(anatomy.site_module(f"{last}.{part}")) for part in parts]
        found: dict[nn.Module, Callable[..., Any]] = {m: _only_at(packed.reads_U, m.forward) for m in partly}
        for module, unshifted_LSX in packed.projected.items():
            found[module] = _only_at(packed.shifted_B, module.forward, unshifted_LSX)
        run_head, run_layer = head.forward, self._layers[self._layer].forward

        def read(hidden_LSD: torch.Tensor) -> torch.Tensor:
            logits_1UV: torch.Tensor = run_head(hidden_LSD.flatten(0, 1).index_select(0, packed.reads_U)[None])
            return logits_1UV

        def skip(*_: Any, **__: Any) -> Any:
            return self._answer(packed.entering_LSD if self._inside else shifted_LSD)

        def from_layer(_: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return run_layer(packed.entering_LSD, *args, **kwargs)

        found |= {head: read} | dict.fromkeys(self._layers[: self._layer + 1], skip)
        if self._inside:
            found[self._layers[self._layer]] = from_layer
            found[self._model.get_submodule(self._site)] = lambda *_, **__: shifted_LSD
        return found

    def _answer(self, hidden: torch.Tensor) -> Any:
        return (hidden,) if self._gives_tuple else hidden

    @torch.no_grad()
    def _keep(self) -> None:
        """Compute the unchanging part once: one row per token, in the order of the packs."""
        model, anatomy, sequences = self._model, self._anatomy, self._sequences
        packs = plan_packs(self._pairs, _PACK_TOKENS)
        order = [b for pack in packs for b in pack]
        after = lay_out(
            [[(b, sequences[b].ids[sequences[b].position :], sequences[b].position) for b in pack] for pack in packs],
            model.device,
        )
        run = run_prompts(
            model, anatomy, [[(b, sequences[b].ids[: sequences[b].position], 0) for b in pack] for pack in packs], after
        )
        self._before = dict(zip(order, accumulate((sequences[b].position for b in order), initial=0), strict=False))
        self._after = dict(zip(order, accumulate((len(self._pairs[b].target) for b in order), initial=0), strict=False))
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        first = self._layer if self._inside else self._layer + 1
        if run.prompts is not None:
            real_LP = run.prompts.owners_LT >= 0
            for layer in run.inputs["past_key_values"].layers[first:]:
                self._kept.append((layer.keys.transpose(1, 2)[real_LP], layer.values.transpose(1, 2)[real_LP]))
        name = anatomy.layer_name(self._layer)
        above: dict[nn.Module, Callable[..., Any]] = {
            layer: lambda hidden, *_, **__: self._answer(hidden) for layer in self._layers[self._layer + 2 :]
        }
        above[model.get_submodule(anatomy.final_norm)] = pass_on
        with standing_in(above), traced(model, [name, self._site, *self._projections]) as trace:
            model.get_submodule(anatomy.backbone)(input_ids=after.ids_LT, **run.inputs)
        real_LS = after.owners_LT >= 0
        self._site_RD = trace.outputs[self._site][real_LS]
        self._entering_RD = (trace.inputs if self._inside else trace.outputs)[name][real_LS]
        self._projected = {model.get_submodule(p): trace.outputs[p][real_LS] for p in self._projections}

    def _projections_of(self, layer_name: str) -> list[str]:
        """The projections of a layer's attention before it mixes positions: queries, keys and values."""
        name = f"{layer_name}.{self._anatomy.parts['attention']}"
        inside = [f"{name}.{inner}" for inner, _ in self._model.get_submodule(name).named_modules() if inner]
        output = f"{layer_name}.{self._anatomy.parts['o_proj']}"
        return [n for n in inside if n != output and isinstance(self._model.get_submodule(n), nn.Linear | Conv1D)]

    def _rows_before(self, b: int) -> range:
        return range(self._before[b], self._before[b] + self._sequences[b].position)

    def _rows_after(self, b: int) -> range:
        return range(self._after[b], self._after[b] + len(self._pairs[b].target))

    def _cache(self, before: PackedTokens) -> Cache:
        """Keys and values of the tokens before the shifted positions; empty for the layers that do not run."""
        kept = [
            _KeptLayer(keys_RHX[before.ids_LT].transpose(1, 2), values_RHX[before.ids_LT].transpose(1, 2))
            for keys_RHX, values_RHX in self._kept
        ]
        return Cache(layers=[DynamicLayer() for _ in range(self._anatomy.num_layers - len(kept))] + kept)


class _KeptLayer(DynamicLayer):
    """Cached keys and values of a layer that a pass attends to without appending its own."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([self.keys, key_states], -2), torch.cat([self.values, value_states], -2)


def tokens_that_fit(model: PreTrainedModel, site: str, sequences: Sequence[MarkedSequence]) -> int:
    """Tokens per pass that take half of the free memory, estimated for sequences like these.

    The backward pass keeps about twice the inputs and outputs of the projections, a copy of the keys and values of the
    tokens before the shifted positions, and four float32 rows of logits for each read position.
    """
    if model.device.type != "cuda":
        return CPU_TOKENS
    anatomy = Anatomy.of(model)
    num_tokens, num_before = sum(s.num_shifted for s in sequences), sum(s.position for s in sequences)
    num_reads = sum(len(_reads(s)) for s in sequences)
    layer = model.get_submodule(anatomy.layer_name(anatomy.site_layer(site)))
    widths = sum(sum(weight.shape[-2:]) for weight in layer.parameters() if weight.dim() > 1)
    hidden, vocabulary = model.get_input_embeddings().weight.shape[1], model.get_output_embeddings().weight.shape[0]
    num_layers = anatomy.num_layers - anatomy.site_layer(site)
    per_layer = 2 * widths + 6 * hidden * num_before / num_tokens
    per_token = model.dtype.itemsize * num_layers * per_layer + 16 * vocabulary * num_reads / num_tokens
    free = torch.cuda.mem_get_info(model.device)[0]
    free += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    return max(1, min(_MOST_TOKENS, int(free / 2 / per_token)))


def _reads(sequence: MarkedSequence) -> range:
    """The read positions, counted from the shifted one."""
    length = sequence.num_shifted
    return range(length - len(sequence.target), length) if sequence.target else range(1)


def _only_at(
    positions_U: torch.Tensor, run: Callable[..., torch.Tensor], elsewhere: torch.Tensor | None = None
) -> Callable[..., torch.Tensor]:
    """Compute a module only at some flat positions; elsewhere return known outputs, or zeros that are never read."""

    def run_some(inputs_LSX: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        flat = inputs_LSX.flatten(0, 1)
        output_UX = run(flat.index_select(0, positions_U)[None], *args, **kwargs)[0]
        others = output_UX.new_zeros(len(flat), output_UX.shape[1]) if elsewhere is None else elsewhere.flatten(0, 1)
        return others.index_copy(0, positions_U, output_UX).view(*inputs_LSX.shape[:-1], -1)

    return run_some


def _check(model: PreTrainedModel, site: str, sequences: Sequence[MarkedSequence]) -> None:
    check_attention(model)
    if site.partition(".")[2] not in ("mlp", "layer"):
        raise ValueError(f"site {site!r}: values are those of <layer>.mlp or <layer>.layer")
    window, longest = getattr(model.config, "sliding_window", None), max(len(s.ids) for s in sequences)
    if window and longest > window:  # some Qwen2 MoE have 0 for none
        raise ValueError(f"a prompt of {longest} tokens exceeds the model's sliding window of {window}")
