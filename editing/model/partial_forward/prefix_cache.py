"""The prefix cache: inputs of the trained part of a model, computed once per sequence and reused in every step.

With one site trained, everything before it computes the same activations in every epoch. They are cached, and a
training step starts at the site, from one of two points:

* `module`: the trained module is a layer's last one and its output is added to the residual stream unchanged (tested on
  the model). Then x, the module's input, and r, the rest of the layer's output, are cached: layer(h) = r + W x.
* `layer`: otherwise the input of the site's layer is cached.

Shapes: N sequences, R tokens of all sequences together, B sequences of a pass, T tokens, D hidden size, X width of the
cached input (D, or the trained module's input).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import nn
from transformers import PreTrainedModel

from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.hooks import first_member, standing_in, stop_forward_at
from overedit.editing.model.memory import OomHalver
from overedit.editing.model.partial_forward.batching import length_groups, padded_rows, padded_tokens

Start = Literal["module", "layer", "embedding"]


class Prefix(NamedTuple):
    """All sequences, and the cached inputs of the trained part for each of their tokens."""

    start: Start
    """Where a training step starts; `embedding` means that nothing is cached."""
    ids_R: torch.Tensor
    """Token ids, int64, one sequence after the other."""
    first_rows: tuple[int, ...]
    """(N) index of each sequence's first token."""
    lengths: tuple[int, ...]
    """(N) tokens of each sequence."""
    inputs_RX: torch.Tensor | None = None
    """Input of the trained module (`module`) or of its layer (`layer`), in the model's dtype."""
    rest_RD: torch.Tensor | None = None
    """`module`: the layer's output without the trained module's part."""
    gives_tuple: bool = False
    """Whether the model's layers return a tuple with the hidden states first."""

    @property
    def num_bytes(self) -> int:
        """Bytes of the cached activations."""
        return sum(kept.nbytes for kept in (self.inputs_RX, self.rest_RD) if kept is not None)

    def rows(self, chosen: Sequence[int]) -> torch.Tensor:
        """The (B, T) rows of the chosen sequences, each padded by its last row; int64 on the model's device."""
        rows_BT = padded_rows([self.first_rows[n] for n in chosen], [self.lengths[n] for n in chosen])
        return rows_BT.to(self.ids_R.device, non_blocking=True)


class LayerInputs(NamedTuple):
    """The input of a layer for every token of all sequences, in the order of `Prefix.ids_R`: where passes may start."""

    layer: int
    rows_RD: torch.Tensor
    gives_tuple: bool
    """Whether the model's layers return a tuple with the hidden states first."""


class PrefixOf(Protocol):
    """Computes the prefix of a site, as `compute_prefix` does."""

    def __call__(
        self,
        model: PreTrainedModel,
        site: str,
        sequences: Sequence[Sequence[int]],
        *,
        max_bytes: int,
        max_tokens_per_pass: int,
    ) -> Prefix:
        """See `compute_prefix`."""


@torch.no_grad()
def compute_prefix(
    model: PreTrainedModel,
    site: str,
    sequences: Sequence[Sequence[int]],
    *,
    max_bytes: int,
    max_tokens_per_pass: int,
    below: LayerInputs | None = None,
) -> Prefix:
    """Run the part of the model before a site once over all sequences, and cache the inputs of the trained part.

    Args:
        model: In evaluation mode; not changed.
        site: The site to be trained, e.g. `6.down_proj`.
        sequences: Token ids of each sequence, at least one each.
        max_bytes: Upper bound of the cache; where `module` needs more, `layer` is used, and where that needs more,
            nothing is cached. 0 caches nothing.
        max_tokens_per_pass: Tokens of one forward pass, padding included.
        below: Known inputs of the site's layer or of one below it, from which the passes start, instead of from the
            embedding. They must be those that the model has now for the same sequences.
    """
    lengths = tuple(len(ids) for ids in sequences)
    first_rows = tuple(accumulate(lengths[:-1], initial=0))
    ids_R = torch.tensor([token for ids in sequences for token in ids], device=model.device)
    prefix = Prefix("embedding", ids_R, first_rows, lengths)
    anatomy = Anatomy.of(model)
    layer = model.get_submodule(anatomy.layer_name(anatomy.site_layer(site)))
    module = model.get_submodule(anatomy.site_module(site)) if site.endswith(".down_proj") else None
    look = partial(_run_to, model, layer, start_pass(model, ids_R, torch.arange(lengths[0])[None], below))
    width, inner_width, gives_tuple = _properties(model, look, module, lengths[0])
    prefix = prefix._replace(gives_tuple=gives_tuple)
    bytes_per_unit = len(ids_R) * model.dtype.itemsize
    if inner_width and bytes_per_unit * (width + inner_width) <= max_bytes:
        prefix = prefix._replace(start="module", inputs_RX=_empty(model, ids_R, inner_width))
        prefix = prefix._replace(rest_RD=_empty(model, ids_R, width))
    elif bytes_per_unit * width > max_bytes:
        return prefix
    elif below is not None and below.layer == anatomy.site_layer(site):
        return prefix._replace(start="layer", inputs_RX=below.rows_RD)
    else:
        prefix, module = prefix._replace(start="layer", inputs_RX=_empty(model, ids_R, width)), None
    groups = length_groups(lengths, range(len(lengths)), max_tokens_per_pass)
    halving, size = OomHalver(), partial(padded_tokens, lengths)
    for _ in halving.run(groups, partial(_fill, model, layer, module, prefix, below), size=size):
        pass
    return prefix


def _empty(model: PreTrainedModel, ids_R: torch.Tensor, width: int) -> torch.Tensor:
    return torch.empty(len(ids_R), width, dtype=model.dtype, device=ids_R.device)


def _fill(
    model: PreTrainedModel,
    layer: nn.Module,
    module: nn.Module | None,
    prefix: Prefix,
    below: LayerInputs | None,
    group: Sequence[int],
) -> None:
    """Run one pass and store its rows in the prefix."""
    rows_BT = prefix.rows(group)
    start = start_pass(model, prefix.ids_R, rows_BT, below)
    reached = _run_to(model, layer, start, module, entering=module is None)
    rows = rows_BT.flatten()  # padding repeats the sequence's last row but has other activations: leave it out
    lengths_B = torch.tensor([prefix.lengths[n] for n in group], device=rows.device)
    real = (torch.arange(rows_BT.shape[1], device=rows.device) < lengths_B[:, None]).flatten()
    assert prefix.inputs_RX is not None
    kept = reached.hidden if module is None else reached.inner
    assert kept is not None
    prefix.inputs_RX[rows[real]] = kept.flatten(0, 1)[real]
    if prefix.rest_RD is not None:
        prefix.rest_RD[rows[real]] = first_member(reached.output).flatten(0, 1)[real]


class _Reached(NamedTuple):
    """One forward pass, up to the end of a layer."""

    hidden: torch.Tensor
    """Input of the layer."""
    inner: torch.Tensor | None
    """Input of the replaced module."""
    output: Any
    """Output of the layer; None where the pass stopped before the layer ran."""


class PassStart(NamedTuple):
    """Where a forward pass starts."""

    hidden_BTD: torch.Tensor
    """The embeddings, or the input of the first layer that runs."""
    stand_ins: dict[nn.Module, Callable[..., Any]]
    """Replacement forwards of that layer and of those before it."""


def start_pass(
    model: PreTrainedModel, ids_R: torch.Tensor, rows_BT: torch.Tensor, below: LayerInputs | None
) -> PassStart:
    """Start from the embeddings of rows of the sequences, or from the layer whose inputs are known."""
    if below is None:
        return PassStart(model.get_input_embeddings()(ids_R[rows_BT]), {})
    anatomy, hidden_BTD = Anatomy.of(model), below.rows_RD[rows_BT]
    skipped = [model.get_submodule(anatomy.layer_name(index)) for index in range(below.layer)]
    first = model.get_submodule(anatomy.layer_name(below.layer))
    answer, run = (hidden_BTD,) if below.gives_tuple else hidden_BTD, first.forward

    def enter(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("hidden_states", None)
        return run(hidden_BTD, *args[1:], **kwargs)

    return PassStart(hidden_BTD, dict.fromkeys(skipped, lambda *_, **__: answer) | {first: enter})


def _run_to(
    model: PreTrainedModel,
    layer: nn.Module,
    start: PassStart,
    module: nn.Module | None,
    scale: float = 0.0,
    *,
    entering: bool = False,
) -> _Reached:
    """Run a model to the end of a layer, with noise of root mean square `scale` as the output of `module`, if any.

    With `entering` the pass stops before the layer runs.
    """
    inner: torch.Tensor | None = None

    def add_noise(inputs: torch.Tensor) -> torch.Tensor:
        nonlocal inner
        inner = inputs
        return _noise(inputs, start.hidden_BTD.shape[-1], scale)

    replaced = start.stand_ins | ({module: add_noise} if module is not None else {})
    with standing_in(replaced), stop_forward_at([layer], entering=entering) as reached:
        model(inputs_embeds=start.hidden_BTD, use_cache=False)
    return _Reached(reached[layer].hidden, inner, reached[layer].output)


def _noise(like: torch.Tensor, width: int, scale: float) -> torch.Tensor:
    noise = torch.randn(*like.shape[:-1], width, generator=torch.Generator().manual_seed(0))
    return (noise * scale).to(like)


class LayerLook(NamedTuple):
    """Properties of a layer, found by running one short sequence."""

    width: int
    inner_width: int
    """Width of the module's input; 0 where its output is not simply added to the rest of the layer's output."""
    gives_tuple: bool


def look_at_layer(
    model: PreTrainedModel, layer: nn.Module, module: nn.Module | None, ids_1T: torch.Tensor
) -> LayerLook:
    """Test on a short sequence whether a module's output is added unchanged to the rest of its layer's output."""
    start = PassStart(model.get_input_embeddings()(ids_1T), {})
    return _properties(model, partial(_run_to, model, layer, start), module, ids_1T.shape[1])


def _properties(
    model: PreTrainedModel, run: Callable[..., _Reached], module: nn.Module | None, num_tokens: int
) -> LayerLook:
    plain = run(None)
    width, gives_tuple = plain.hidden.shape[-1], isinstance(plain.output, tuple)
    if module is None:
        return LayerLook(width, 0, gives_tuple)
    without = run(module)
    if without.inner is None or without.inner.shape[:-1] != (1, num_tokens):
        return LayerLook(width, 0, gives_tuple)
    rest = first_member(without.output)
    scale = 4 * float(rest.float().square().mean().sqrt())
    noisy = first_member(run(module, scale).output)
    gap = (rest + _noise(without.inner, width, scale) - noisy).abs().max()
    added = float(gap) <= 8 * torch.finfo(model.dtype).eps * float(noisy.abs().max())
    return LayerLook(width, without.inner.shape[-1] if added else 0, gives_tuple)
