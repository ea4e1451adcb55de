"""Inputs and outputs of one module at the subjects' last tokens, read by forward passes that stop at the module.

Attention is causal, so each sequence is cut after its subject, padded on the right by repeating its last token, and
needs no mask; later modules are not run. Sequences of similar length run together.

Shapes: S sequences, T tokens, X width of the tensor read; N edits, C contexts of each, I inputs and O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from overedit.editing.methods.locate_then_edit.subjects import PromptSet, Templates
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.hooks import first_member, frozen, stop_forward_at
from overedit.editing.model.memory import OomHalver
from overedit.editing.model.partial_forward.batching import pad_with_last, plan_batches
from overedit.editing.model.tokenization import MarkedSequence

_ROWS_TOGETHER = 4096
"""Rows held at once before their means over contexts are taken: some 0.5 GB for 14,336 inputs."""


class Keys(NamedTuple):
    """Keys of one projection at the subjects' last tokens, float64."""

    mean_IN: torch.Tensor
    """Mean over the groups of contexts."""
    bare_IN: torch.Tensor
    """Keys of the bare prompts."""


class SubjectActivations(NamedTuple):
    """Reads a model's activations at the subjects of one turn."""

    model: PreTrainedModel
    prompt_sets: Sequence[PromptSet]
    templates: Templates
    max_tokens: int

    def keys(self, site: str) -> Keys:
        """The inputs of a projection."""
        return self._in_contexts(inputs_of=site)

    def outputs(self, site: str, *, in_contexts: bool) -> torch.Tensor:
        """The outputs of a site, (O, N) float64: of the bare prompts, or means over contexts, as for the keys."""
        if in_contexts:
            return self._in_contexts(outputs_of=site).mean_IN
        bare = [prompt_set.prompts[0] for prompt_set in self.prompt_sets]
        return at_subjects(self.model, bare, outputs_of=site, max_tokens=self.max_tokens).double().T

    def _in_contexts(self, **read: str) -> Keys:
        """Means over contexts, and the rows of the bare prompts; requests are read in chunks to bound memory."""
        sizes = [len(group) for group in self.templates]
        means, bare = [], []
        for some in _chunks(self.prompt_sets, max(1, _ROWS_TOGETHER // sum(sizes))):
            marked = [prompt for prompt_set in some for prompt in prompt_set.prompts]
            rows_RX = at_subjects(self.model, marked, max_tokens=self.max_tokens, **read).double()
            rows_NCX = rows_RX.unflatten(0, (len(some), -1))
            means.append(torch.stack([group_NCX.mean(1) for group_NCX in rows_NCX.split(sizes, dim=1)]).mean(0))
            bare.append(rows_NCX[:, 0].clone())  # a view would keep the other contexts' rows
        return Keys(torch.cat(means).T, torch.cat(bare).T)


def _chunks(prompt_sets: Sequence[PromptSet], size: int) -> Iterator[Sequence[PromptSet]]:
    return (prompt_sets[first : first + size] for first in range(0, len(prompt_sets), size))


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
