"""What enters or leaves one module at the subjects' last tokens: a forward pass that ends where it is read.

Attention is causal, so every sequence is cut behind its subject, padded on the right by repeating its last token, and
needs no mask; what lies behind the module is not run. Sequences of like length run together.

Shapes: S sequences, T tokens, X width of what is read; N edits, C contexts of each, I inputs and O outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from editing.anatomy import Anatomy
from editing.subjects import Placed, Rewriting, Templates
from editing.tokens import pad
from editing.tracing import frozen, traced


class Keys(NamedTuple):
    """Keys of one projection at the subjects' last tokens, float64."""

    mean_IN: torch.Tensor
    """Mean over the groups of contexts."""
    bare_IN: torch.Tensor
    """Of the bare prompts."""


class Subjects(NamedTuple):
    """The subjects of a turn, and what a model as it is now has at them."""

    model: PreTrainedModel
    rewritings: Sequence[Rewriting]
    templates: Templates
    max_tokens: int

    def keys(self, site: str) -> Keys:
        """What enters a projection."""
        rows_NCI = self._rows(inputs_of=site)
        return Keys(self._mean(rows_NCI).T, rows_NCI[:, 0].T)

    def outputs(self, site: str, *, in_contexts: bool) -> torch.Tensor:
        """What leaves a site, (O, N) float64: for the bare prompts, or the mean over contexts, as the keys' is."""
        if in_contexts:
            return self._mean(self._rows(outputs_of=site)).T
        bare = [rewriting.prompts[0] for rewriting in self.rewritings]
        return at_subjects(self.model, bare, outputs_of=site, max_tokens=self.max_tokens).double().T

    def _rows(self, **read: str) -> torch.Tensor:
        placed = [prompt for rewriting in self.rewritings for prompt in rewriting.prompts]
        rows_RX = at_subjects(self.model, placed, max_tokens=self.max_tokens, **read).double()
        return rows_RX.unflatten(0, (len(self.rewritings), -1))

    def _mean(self, rows_NCX: torch.Tensor) -> torch.Tensor:
        groups = rows_NCX.split([len(group) for group in self.templates], dim=1)
        return torch.stack([group_NCX.mean(1) for group_NCX in groups]).mean(0)


@torch.no_grad()
def at_subjects(
    model: PreTrainedModel,
    sequences: Sequence[Placed],
    *,
    inputs_of: str | None = None,
    outputs_of: str | None = None,
    max_tokens: int,
) -> torch.Tensor:
    """Read one site at every sequence's place.

    Args:
        model: Bit-identical on return.
        sequences: At least one.
        inputs_of: A site, e.g. `5.down_proj`, whose input is read; or
        outputs_of: a site, e.g. `5.layer`, whose output is read.
        max_tokens: The most tokens that run together; a longer sequence runs alone.

    Returns:
        (S, X), in the model's dtype and on its device.
    """
    site = inputs_of or outputs_of
    assert site is not None
    name = Anatomy.of(model).site_module(site)
    rows: list[torch.Tensor | None] = [None] * len(sequences)
    with frozen(model), traced(model, [name]) as trace, _ending_at(model.get_submodule(name)):
        for chosen in batches(sequences, max_tokens):
            cut = [sequences[i].ids[: sequences[i].place + 1] for i in chosen]
            longest = max(map(len, cut))
            ids_ST = pad([[*ids, *[ids[-1]] * (longest - len(ids))] for ids in cut], value=0).to(model.device)
            with suppress(_ReadError):
                model(input_ids=ids_ST, use_cache=False)
            seen_STX = (trace.inputs if inputs_of else trace.outputs)[name]
            for n, i in enumerate(chosen):
                rows[i] = seen_STX[n, len(cut[n]) - 1]
    return torch.stack([row_X for row_X in rows if row_X is not None])


def batches(sequences: Sequence[Placed], max_tokens: int) -> Iterator[list[int]]:
    """Indices of sequences of like length, at most `max_tokens` together, padding counted."""
    waiting: list[int] = []
    for i in sorted(range(len(sequences)), key=lambda i: sequences[i].place):
        if waiting and (len(waiting) + 1) * (sequences[i].place + 1) > max_tokens:
            yield waiting
            waiting = []
        waiting.append(i)
    if waiting:
        yield waiting


class _ReadError(Exception):
    """Ends a forward pass: what was asked for has been read."""


@contextmanager
def _ending_at(module: nn.Module) -> Iterator[None]:
    """End every forward pass behind a module; later layers and the head are not run."""

    def end(*_: Any) -> None:
        raise _ReadError

    handle = module.register_forward_hook(end)  # behind the hooks that are there
    try:
        yield
    finally:
        handle.remove()
