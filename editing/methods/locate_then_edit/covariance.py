"""The covariance of keys, C0 = E[k k^T], over ordinary text: the inputs for which an edit should change nothing.

k is the input of a projection at one token of ordinary text; C0 is the uncentred second moment, a mean over tokens, as
in ROME (arXiv 2202.05262, section 3.1 and appendix E.1; MEMIT, arXiv 2210.07229, section 4.2.2).

* All sites are read in one pass over the text. A forward pass stops when the last of them receives its input: that
  projection, later layers and the head are never run.
* Texts are tokenised with the tokenizer's own special tokens, so a beginning-of-text token counts like any other; an
  end token is left out. Each text is cut after `max_length` tokens, or the model's context where that is less.
* Texts of similar length run together, padded on the right by repeating the last token: attention is causal, so no real
  token sees the padding, and no mask is needed. The padding's own keys are left out of the sum.
* Sums are float64. On a CPU the products are float64 too. On a GPU, where those can be sixty times slower, at most
  1,024 rows are multiplied in float32 at a time: that errs by some 2e-9 of C0's norm (3e-7 of sqrt(C0_ii C0_jj) in one
  entry), less than the float32 keys themselves. Keys in half precision are exact in float32.

Shapes: B sequences of a pass, T tokens, R rows (real tokens), I inputs of a projection, J the first of them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import NamedTuple, Self

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import Progress, silent
from overedit.editing.model.anatomy import Anatomy, context_length, stores_in_out
from overedit.editing.model.hooks import frozen, stop_forward_at
from overedit.editing.model.memory import OomHalver
from overedit.editing.model.partial_forward.batching import length_groups, pad_with_last, padded_tokens
from overedit.editing.model.tokenization import encode_texts

logger = logging.getLogger(__name__)

_TEXTS_READ_AHEAD = 4096
_ROWS_A_PRODUCT = 1024
_INPUTS_COMPARED = 1024


class Eigen(NamedTuple):
    """C0 = U diag(eigenvalues) U^T."""

    eigenvalues: torch.Tensor
    """(I) float64, increasing."""
    eigenvectors: torch.Tensor
    """(I, I) float64, a column each."""


@dataclass(frozen=True)
class SecondMoment:
    """C0 of one projection's keys; its factors are computed on first use and cached in the instance."""

    matrix_II: torch.Tensor
    """(I, I) float64, symmetric: the mean of k k^T."""
    num_tokens: int
    """Number of keys in the mean."""
    convergence: float
    """||A - B|| / ||C0||, Frobenius, where A and B are the means over the even and the odd texts: about twice the
    sampling error of C0. Computed on the first 1,024 inputs; infinite for a single text."""

    @cached_property
    def cholesky_II(self) -> torch.Tensor:
        """L, lower triangular, float64, with C0 = L L^T.

        A C0 without full rank (fewer tokens than inputs, an input that is always 0, rounding) has no such factor; then
        the smallest sufficient multiple of its mean diagonal is added to the diagonal, with a warning.
        """
        scale, added = float(self.matrix_II.diagonal().mean()), 0.0
        factor_II: torch.Tensor
        factor_II, failed = torch.linalg.cholesky_ex(self.matrix_II)
        while bool(failed) and scale > 0 and math.isfinite(scale):
            added = max(10 * added, 1e-14 * scale)
            matrix_II = self.matrix_II.clone()
            matrix_II.diagonal().add_(added)
            factor_II, failed = torch.linalg.cholesky_ex(matrix_II)
        if added:
            logger.warning(
                "C0 of %d inputs over %d tokens has no inverse: %.1e of its mean diagonal is added to it; more text "
                "(num_samples) avoids that",
                len(self.matrix_II),
                self.num_tokens,
                added / scale,
            )
        return factor_II

    @cached_property
    def eigen(self) -> Eigen:
        """Eigenvalues and eigenvectors."""
        return Eigen(*torch.linalg.eigh(self.matrix_II))

    def null_space(self, threshold: float) -> torch.Tensor:
        """The eigenvectors whose eigenvalue is below a threshold: (I, M) float64, orthonormal columns."""
        count = int((self.eigen.eigenvalues < threshold).sum())
        return self.eigen.eigenvectors[:, :count]  # a view: the eigenvalues increase


@torch.no_grad()
def second_moments(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    sites: Sequence[str],
    *,
    max_length: int,
    max_tokens_per_pass: int = 8192,
    progress: Progress = silent,
) -> dict[str, SecondMoment]:
    """C0 of several projections' keys, from one pass over the text.

    Args:
        model: Bit-identical on return, gradient flags, training mode and hooks included.
        tokenizer: Its tokenizer.
        texts: Read lazily, some thousands ahead, so they may be a stream.
        sites: Projections, at least one, e.g. `5.down_proj`.
        max_length: Tokens after which a text is cut; the model's context where that is less.
        max_tokens_per_pass: Tokens per pass, padding included: bounds memory, without effect on the result.
        progress: Called with (texts done, total texts as far as known).

    Returns:
        C0 by site, each on the device of its projection.

    Raises:
        ValueError: A site that is not a projection of the model, texts without a token, or keys that are not finite.
    """
    anatomy = Anatomy.of(model)
    modules = {site: model.get_submodule(anatomy.site_module(site)) for site in sites}
    sums = {site: MomentSum.of_inputs(module) for site, module in modules.items()}
    return summed_moments(
        model,
        encoded(model, tokenizer, texts, max_length),
        sums,
        partial(_keys, model, modules),
        max_tokens_per_pass=max_tokens_per_pass,
        total_texts=len(texts) if isinstance(texts, Sequence) else 0,
        progress=progress,
    )


def summed_moments(
    model: PreTrainedModel,
    blocks: Iterable[Sequence[Sequence[int]]],
    sums: Mapping[str, MomentSum],
    read: Callable[[Sequence[Sequence[int]]], Mapping[str, torch.Tensor]],
    *,
    max_tokens_per_pass: int,
    left_out: int = 0,
    check: bool = True,
    total_texts: int = 0,
    progress: Progress = silent,
) -> dict[str, SecondMoment]:
    """The second moments of what forward passes read, over all tokens of all texts.

    Args:
        model: Bit-identical on return.
        blocks: Token ids of the texts, in blocks of an even number of texts.
        sums: What is summed, by name.
        read: Given the ids of some texts, longest first: rows (B, T, X) by the same names.
        max_tokens_per_pass: Tokens per pass, padding included.
        left_out: Tokens at the end of each text whose rows are not counted.
        check: Refuse rows that are not finite.
        total_texts: The number of texts, for the progress; 0 where it is not known.
        progress: Called with (texts done, total texts as far as known).

    Raises:
        ValueError: Texts without a token that counts, or rows that are not finite.
    """
    halving, done = OomHalver(), 0
    with frozen(model):
        for ids in blocks:
            lengths = [len(row) for row in ids]
            filled = [n for n, length in enumerate(lengths) if length > left_out]
            done += len(ids) - len(filled)
            groups = length_groups(lengths, filled, max_tokens_per_pass)
            for group, rows in halving.run(
                groups, partial(_read_group, read, ids), size=partial(padded_tokens, lengths)
            ):
                halves = _positions_by_half(ids, group, left_out)
                for name, values in rows.items():
                    sums[name].add(values, halves)
                done += len(group)
                progress(done, max(done, total_texts))
    return {name: total.mean(name, model.dtype, check=check) for name, total in sums.items()}


class MomentSum:
    """The running sum of x x^T of rows x, and the same over the even texts for the first 1,024 entries of x.

    Both are symmetric, so only the blocks on and above the diagonal are computed: 10 of 16.
    """

    def __init__(self, width: int, weight: torch.Tensor) -> None:
        """An empty sum of rows of this width, on the device of a weight, for products in its dtype or a wider one."""
        compared = min(width, _INPUTS_COMPARED)
        self.sum_II = torch.zeros(width, width, dtype=torch.float64, device=weight.device)
        self.half_JJ = self.sum_II.new_zeros(compared, compared)
        self.num_tokens = [0, 0]
        self.block = max(1024, math.ceil(width / 4))
        on_cpu = weight.device.type == "cpu"
        self.product_dtype = torch.float64 if on_cpu else torch.promote_types(weight.dtype, torch.float32)

    @classmethod
    def of_inputs(cls, projection: nn.Module) -> Self:
        """An empty sum for the inputs of a projection; raises ValueError if the module is not one."""
        width_at = 0 if stores_in_out(projection) else 1
        weight = projection.get_parameter("weight")
        return cls(weight.shape[width_at], weight)

    @classmethod
    def of_outputs(cls, projection: nn.Module) -> Self:
        """An empty sum for the outputs of a projection; raises ValueError if the module is not one."""
        width_at = 1 if stores_in_out(projection) else 0
        weight = projection.get_parameter("weight")
        return cls(weight.shape[width_at], weight)

    def add(self, keys: torch.Tensor, halves: Sequence[torch.Tensor]) -> None:
        """Add the rows of a pass, (B, T, I), at the flat positions b * T + t of each half."""
        keys_RI = keys.reshape(-1, keys.shape[-1])
        for half, positions_R in enumerate(halves):
            for part_R in positions_R.to(keys.device).split(_ROWS_A_PRODUCT):
                self._add_rows(keys_RI.index_select(0, part_R).to(self.product_dtype), compared=half == 0)
            self.num_tokens[half] += len(positions_R)

    def _add_rows(self, rows_RI: torch.Tensor, *, compared: bool) -> None:
        num_compared = len(self.half_JJ)
        for start in range(0, rows_RI.shape[1], self.block):
            end = start + self.block
            product = rows_RI[:, :end].T @ rows_RI[:, start:end]
            self.sum_II[:end, start:end] += product
            if compared and start < num_compared:
                self.half_JJ[:end, start:end] += product[:num_compared, : num_compared - start]

    def mean(self, site: str, dtype: torch.dtype, *, check: bool) -> SecondMoment:
        """The mean of x x^T.

        Raises:
            ValueError: There was no token, or a row was not finite.
        """
        num_tokens = sum(self.num_tokens)
        if num_tokens == 0:
            raise ValueError("texts: there is not one token in the corpus")
        if check and not bool(self.sum_II.isfinite().all()):
            raise ValueError(f"site {site}: keys that are not finite in {dtype}; load the model in a wider dtype")
        return SecondMoment(_mirrored(self.sum_II) / num_tokens, num_tokens, self._convergence())

    def _convergence(self) -> float:
        first, second = self.num_tokens
        if min(first, second) == 0:
            return math.inf
        half_JJ = _mirrored(self.half_JJ)
        whole_JJ = _mirrored(self.sum_II[: len(half_JJ), : len(half_JJ)])
        gap_JJ = half_JJ / first - (whole_JJ - half_JJ) / second
        return float(gap_JJ.norm() / (whole_JJ / (first + second)).norm())


def _mirrored(upper_II: torch.Tensor) -> torch.Tensor:
    """The symmetric matrix with this upper triangle; the lower one is ignored."""
    return upper_II.triu() + upper_II.triu(1).T


def _read_group(
    read: Callable[[Sequence[Sequence[int]]], Mapping[str, torch.Tensor]],
    ids: Sequence[Sequence[int]],
    group: Sequence[int],
) -> Mapping[str, torch.Tensor]:
    return read([ids[n] for n in group])


def _keys(
    model: PreTrainedModel, modules: Mapping[str, nn.Module], ids: Sequence[Sequence[int]]
) -> dict[str, torch.Tensor]:
    """The input of each module in one forward pass, which stops when the last of them is reached."""
    ids_BT = pad_with_last(ids).to(model.device)
    with stop_forward_at(modules.values(), entering=True) as reached:
        model(input_ids=ids_BT, use_cache=False)
    return {site: reached[module].hidden for site, module in modules.items()}


def encoded(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], max_length: int
) -> Iterator[list[tuple[int, ...]]]:
    """Token ids of the texts, in blocks of an even number of texts, each cut to `max_length` or the model's context."""
    cap, waiting = min(max_length, context_length(model.config) or max_length), iter(texts)
    while pool := list(islice(waiting, _TEXTS_READ_AHEAD)):
        yield [ids[:cap] for ids in encode_texts(tokenizer, pool)]


def _positions_by_half(ids: Sequence[Sequence[int]], group: Sequence[int], left_out: int) -> list[torch.Tensor]:
    """Flat positions b * T + t of the tokens that count, int64: of texts with an even index, then of the others."""
    longest = len(ids[group[0]])
    halves: list[list[int]] = [[], []]
    for b, n in enumerate(group):
        halves[n % 2].extend(range(b * longest, b * longest + len(ids[n]) - left_out))
    return [torch.tensor(positions, dtype=torch.int64) for positions in halves]
