"""Inputs and outputs of one module at the subjects' last tokens, read by forward passes that stop at the module.

Attention is causal, so each sequence is cut after its subject; later modules are not run. The prompts of a turn share
their prefixes, and the layers below the one whose keys were read last are not run again (see `prefix_tree` and
`tree_forward`). Where attention does not take the mask that this needs, all layers are run for each sequence; those of
similar length run together, padded on the right by repeating their last token.

Shapes: S sequences, T tokens, X width of the tensor read; N edits, C contexts of each, I inputs and O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from overedit.editing.methods.locate_then_edit.subjects import PromptSet, Templates
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.hooks import first_member, frozen, stop_forward_at
from overedit.editing.model.memory import OomHalver
from overedit.editing.model.partial_forward.batching import pad_with_last, plan_batches
from overedit.editing.model.partial_forward.packing import takes_mask
from overedit.editing.model.partial_forward.tree_forward import TreeForward
from overedit.editing.model.tokenization import MarkedSequence

_ROWS_TOGETHER = 4096
"""Rows held at once before their means over contexts are taken: some 0.5 GB for 14,336 inputs."""
KEPT_PASSES = 16
"""The inputs of a layer, for this many times the tokens of a pass, take about the memory of a pass."""


class Keys(NamedTuple):
    """Keys of one projection at the subjects' last tokens, float64."""

    mean_IN: torch.Tensor
    """Mean over the groups of contexts."""
    bare_IN: torch.Tensor
    """Keys of the bare prompts."""


class SubjectActivations:
    """Reads a model's activations at the subjects of one turn.

    Equal prefixes of prompts, such as a context template's, are computed once. Reading the keys of a site keeps the
    inputs of its layer, from which later readings start, as long as nothing is written to the model below that layer.

    Args:
        model: Bit-identical after each reading.
        prompt_sets: At least one.
        templates: The contexts of their prompts.
        max_tokens: Tokens per pass; the inputs of a layer are kept for `KEPT_PASSES` times as many.
    """

    def __init__(
        self, model: PreTrainedModel, prompt_sets: Sequence[PromptSet], templates: Templates, max_tokens: int
    ) -> None:
        self._sizes = [len(group) for group in templates]
        self._chunks: list[_Chunk] = []
        room, size = KEPT_PASSES * max_tokens, max(1, _ROWS_TOGETHER // sum(self._sizes))
        for first in range(0, len(prompt_sets), size):
            some = [prompt_set.prompts for prompt_set in prompt_sets[first : first + size]]
            parts = [prompts[0] for prompts in some], [marked for prompts in some for marked in prompts[1:]]
            readers = [_Reader(model, part, max_tokens) for part in parts if part]
            room -= sum(reader.num_tokens for reader in readers)
            self._chunks.append(_Chunk(len(some), readers, keep=room >= 0))

    def keys(self, site: str) -> Keys:
        """The inputs of a projection."""
        return self._in_contexts(site, entering=True)

    def outputs(self, site: str, *, in_contexts: bool) -> torch.Tensor:
        """The outputs of a site, (O, N) float64: of the bare prompts, or means over contexts, as for the keys."""
        if in_contexts:
            return self._in_contexts(site, entering=False).mean_IN
        rows = [chunk.readers[0].read(site, entering=False, keep=False) for chunk in self._chunks]
        return torch.cat(rows).double().T

    def _in_contexts(self, site: str, *, entering: bool) -> Keys:
        """Means over contexts, and the rows of the bare prompts; requests are read in chunks to bound memory."""
        means, bare = [], []
        for chunk in self._chunks:
            keep = entering and chunk.keep
            parts = [reader.read(site, entering=entering, keep=keep).double() for reader in chunk.readers]
            rows_NCX = torch.cat([part_RX.unflatten(0, (chunk.num_requests, -1)) for part_RX in parts], 1)
            means.append(torch.stack([group_NCX.mean(1) for group_NCX in rows_NCX.split(self._sizes, dim=1)]).mean(0))
            bare.append(parts[0])
        return Keys(torch.cat(means).T, torch.cat(bare).T)


class _Chunk(NamedTuple):
    """Requests that are read together."""

    num_requests: int
    readers: list[_Reader]
    """Of the bare prompts, and of those in the other contexts, if there are any."""
    keep: bool
    """Whether the inputs of a layer are kept."""


class _Reader:
    """Reads a site at the marked positions of some sequences."""

    def __init__(self, model: PreTrainedModel, sequences: Sequence[MarkedSequence], max_tokens: int) -> None:
        self._plain = partial(at_subjects, model, sequences, max_tokens=max_tokens)
        cut = [sequence.ids[: sequence.position + 1] for sequence in sequences]
        fits = takes_mask(model, max(map(len, cut)))
        self._shared = TreeForward(model, cut, max_tokens=max_tokens) if fits else None

    @property
    def num_tokens(self) -> int:
        """Tokens for which inputs of a layer would be kept."""
        return self._shared.num_tokens if self._shared is not None else 0

    def read(self, site: str, *, entering: bool, keep: bool) -> torch.Tensor:
        """The rows, (S, X); see `TreeForward.read`."""
        if self._shared is None:
            return self._plain(inputs_of=site) if entering else self._plain(outputs_of=site)
        return self._shared.read(site, entering=entering, keep=keep)


@torch.no_grad()
def at_subjects(
    model: PreTrainedModel,
    sequences: Sequence[MarkedSequence],
    *,
    inputs_of: str | None = None,
    outputs_of: str | None = None,
    max_tokens: int,
) -> torch.Tensor:
    """Read one site at every sequence's marked position.

    Args:
        model: Bit-identical on return.
        sequences: At least one.
        inputs_of: A site whose input is read, e.g. `5.down_proj`; or
        outputs_of: a site whose output is read, e.g. `5.layer`.
        max_tokens: Tokens per pass at most, padding included; a longer sequence runs alone.

    Returns:
        (S, X), in the model's dtype and on its device.
    """
    site = inputs_of or outputs_of
    assert site is not None
    module = model.get_submodule(Anatomy.of(model).site_module(site))
    lengths = [sequence.position + 1 for sequence in sequences]
    rows_SX: torch.Tensor | None = None

    def read(chosen: Sequence[int]) -> torch.Tensor:
        ids_ST = pad_with_last([sequences[i].ids[: lengths[i]] for i in chosen]).to(model.device)
        with stop_forward_at([module], entering=inputs_of is not None) as reached:
            model(input_ids=ids_ST, use_cache=False)
        seen = reached[module].hidden if inputs_of is not None else first_member(reached[module].output)
        last_S = torch.tensor([lengths[i] - 1 for i in chosen], device=seen.device)
        seen_STX = seen.reshape(*ids_ST.shape, -1)  # a shared expert sees all tokens in one row
        return seen_STX[torch.arange(len(chosen)), last_S]

    def size(chosen: Sequence[int]) -> int:
        return sum(lengths[i] for i in chosen)

    shortest_first = sorted(range(len(lengths)), key=lengths.__getitem__)
    passes = plan_batches(lengths, max_tokens, order=shortest_first, padded=True)
    with frozen(model):
        for chosen, found_SX in OomHalver().run(passes, read, size=size):
            if rows_SX is None:
                rows_SX = found_SX.new_empty(len(sequences), found_SX.shape[-1])
            rows_SX[torch.tensor(chosen, device=found_SX.device)] = found_SX
    assert rows_SX is not None
    return rows_SX
