"""The curvature of a language model's loss on ordinary text, as Kronecker factors: B (x) A for each projection.

With x the input of a projection y = W x at one token and g the gradient, with respect to y, of the *summed* next-token
loss of the text, the loss's curvature in W is approximated by E[x x^T (x) g g^T], and K-FAC (Martens and Grosse 2015,
arXiv 1503.05671, section 3) takes the product of the means instead:

    A = E[x x^T]        B = E[g g^T]        loss(W + Delta) - loss(W) ~ tr(B Delta A Delta^T) / 2

The means are over the tokens that predict a next one, so the last token of a text is not counted. The labels are the
text's own tokens (the empirical Fisher, as arXiv 2602.15823). All projections are read in one pass forward and back.

A factor is a second moment with a name of its own, `<layer>.<part>.inputs` or `<layer>.<part>.gradients`, so it is
cached as the covariance of keys is. A differs from that covariance by the last tokens.

Shapes: B sequences of a pass, T tokens, R tokens that predict one, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import Progress, State, silent
from overedit.editing.methods.gradients.cross_entropy import cross_entropy_gradient
from overedit.editing.methods.locate_then_edit.covariance import MomentSum, SecondMoment, encoded, summed_moments
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.hooks import standing_in, traced
from overedit.editing.model.partial_forward.batching import pad_with_last
from overedit.editing.model.shape import ModelShape

_INPUTS, _GRADIENTS = "inputs", "gradients"
_TOKENS = "edit_tokens"


def factor_names(site: str) -> tuple[str, str]:
    """The names of a projection's factors A and B."""
    return f"{site}.{_INPUTS}", f"{site}.{_GRADIENTS}"


def is_factor(name: str) -> bool:
    """Whether a second moment's name is that of a factor, and not a site, whose covariance of keys is meant."""
    return name.endswith((f".{_INPUTS}", f".{_GRADIENTS}"))


def site_of(name: str) -> str:
    """The site of a second moment."""
    return name.rpartition(".")[0] if is_factor(name) else name


def reading_operations(shape: ModelShape, names: Collection[str], num_tokens: float) -> float:
    """Operations of computing second moments over a text.

    One pass that ends at the deepest site, or goes to the end and back for factors of the curvature; and in float64 a
    product of I x I (or O x O) for each token and second moment.
    """
    sites = {name: shape.projections[site_of(name)] for name in names}
    widths = [site.outputs if name.endswith(f".{_GRADIENTS}") else site.inputs for name, site in sites.items()]
    passes = shape.forward(num_tokens, layers=1 + max(site.layer for site in sites.values()))
    if any(map(is_factor, names)):
        passes = 2 * shape.forward(num_tokens) + 2 * shape.head(num_tokens)
    return passes + sum(4.0 * width**2 for width in widths) * num_tokens


def curvature_of_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    names: Sequence[str],
    *,
    max_length: int,
    max_tokens_per_pass: int = 4096,
    progress: Progress = silent,
) -> dict[str, SecondMoment]:
    """Factors over ordinary text.

    Args:
        model: Bit-identical on return.
        tokenizer: Its tokenizer.
        texts: Read lazily.
        names: Of the factors, at least one.
        max_length: Tokens after which a text is cut; the model's context where that is less.
        max_tokens_per_pass: Tokens per pass, padding included: bounds memory, without effect on the result.
        progress: Called with (texts done, total texts as far as known).

    Raises:
        ValueError: A site that is not a projection of the model, texts without two tokens, or values not finite.
    """
    sites = tuple(dict.fromkeys(map(site_of, names)))
    found = curvature(
        model,
        encoded(model, tokenizer, texts, max_length),
        sites,
        max_tokens_per_pass=max_tokens_per_pass,
        total_texts=len(texts) if isinstance(texts, Sequence) else 0,
        progress=progress,
    )
    return {name: found[name] for name in names}


@torch.no_grad()
def curvature(
    model: PreTrainedModel,
    blocks: Iterable[Sequence[Sequence[int]]],
    sites: Sequence[str],
    *,
    max_tokens_per_pass: int = 4096,
    check: bool = True,
    total_texts: int = 0,
    progress: Progress = silent,
) -> dict[str, SecondMoment]:
    """Both factors of each site, by `factor_names`, over texts given as token ids; see `summed_moments`."""
    anatomy = Anatomy.of(model)
    modules = {site: anatomy.site_module(site) for site in sites}
    sums: dict[str, MomentSum] = {}
    for site, name in modules.items():
        module = model.get_submodule(name)
        sums |= dict(zip(factor_names(site), (MomentSum.of_inputs(module), MomentSum.of_outputs(module)), strict=True))
    return summed_moments(
        model,
        blocks,
        sums,
        partial(_inputs_and_gradients, model, anatomy, modules),
        max_tokens_per_pass=max_tokens_per_pass,
        left_out=1,
        check=check,
        total_texts=total_texts,
        progress=progress,
    )


def merged(one: SecondMoment, other: SecondMoment | None) -> SecondMoment:
    """The second moment of two texts together, on the device of the first."""
    if other is None:
        return one
    total = one.num_tokens + other.num_tokens
    sum_II = one.matrix_II * one.num_tokens + other.matrix_II.to(one.matrix_II.device) * other.num_tokens
    return SecondMoment(sum_II / total, total, max(one.convergence, other.convergence))


def earlier_edits(state: State, name: str) -> SecondMoment | None:
    """The factor of the texts of all edits of earlier turns, float64; None before the first."""
    if _TOKENS not in state:
        return None
    return SecondMoment(state[name].double(), int(state[_TOKENS]), math.inf)


def with_edits(state: State, edits: Mapping[str, SecondMoment]) -> State:
    """What to put into the state: by name the factors of all edits' texts, float32, and `edit_tokens`, their tokens.

    Factors that are not finite, of a model that a turn has destroyed, are not added.
    """
    if not all(bool(moment.matrix_II.isfinite().all()) for moment in edits.values()):
        return {name: state[name] for name in (*edits, _TOKENS) if name in state}
    whole = {name: merged(moment, earlier_edits(state, name)) for name, moment in edits.items()}
    stored = {name: moment.matrix_II.float().cpu() for name, moment in whole.items()}
    return stored | {_TOKENS: torch.tensor(next(iter(whole.values())).num_tokens)}


def _inputs_and_gradients(
    model: PreTrainedModel, anatomy: Anatomy, modules: Mapping[str, str], ids: Sequence[Sequence[int]]
) -> dict[str, torch.Tensor]:
    """One pass forward and back over texts, longest first; the head is computed for the tokens that predict one."""
    ids_BT = pad_with_last(ids).to(model.device)
    longest = ids_BT.shape[1]
    reads = [b * longest + t for b, row in enumerate(ids) for t in range(len(row) - 1)]
    reads_R = torch.tensor(reads, device=model.device)
    head = model.get_submodule(anatomy.head)
    run_head = head.forward

    def at_reads(hidden_BTD: torch.Tensor) -> torch.Tensor:
        logits_1RV: torch.Tensor = run_head(hidden_BTD.flatten(0, 1).index_select(0, reads_R)[None])
        return logits_1RV

    with (
        torch.enable_grad(),
        traced(model, list(modules.values()), gradients=True) as trace,
        standing_in({head: at_reads}),
    ):
        logits_RV = model(input_ids=ids_BT, use_cache=False).logits.flatten(0, 1)
        log_p_RV = logits_RV.detach().float().log_softmax(-1)
        labels_R = ids_BT.flatten()[reads_R + 1]
        _, gradient_RV = cross_entropy_gradient(log_p_RV, labels_R, log_p_RV.new_ones(len(reads)))
        gradients = trace.output_gradients(logits_RV, gradient_RV.to(logits_RV.dtype))
    rows: dict[str, torch.Tensor] = {}
    for site, module in modules.items():
        rows |= dict(zip(factor_names(site), (trace.inputs[module], gradients[module]), strict=True))
    return rows
