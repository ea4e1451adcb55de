"""Values: the output of a layer at a subject's last token for which the model predicts the new target.

ROME's v* (arXiv 2202.05262, eq. 4) and MEMIT's z (arXiv 2210.07229, eq. 16): a shift delta of a site's output, found by
Adam, for the loss

    mean over prompts of (mean over target tokens of -log p)        the new target, in every context
    + kl_factor * KL(p with delta || p without)                     next token at the subject of the KL prompt
    + weight_decay * |delta| / |v|^2                                v: the unshifted output, bare prompt
    with |delta| <= clamp_norm_factor * |v|, by scaling back after each step.

Requests are independent, so any number of them run together, each with its own delta, optimizer moments and stopping
step; a request that has stopped keeps its delta and is left out of later passes. Checked against recorded runs of a
published implementation.

Shapes: N requests, B sequences, U positions whose logits are read, K the most of these per request, D hidden size, V
vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from overedit.editing.methods.base import Progress, silent
from overedit.editing.methods.gradients.cross_entropy import cross_entropy_gradient
from overedit.editing.methods.locate_then_edit.subjects import PromptSet
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions
from overedit.editing.model.hooks import frozen
from overedit.editing.model.memory import OomHalver
from overedit.editing.model.partial_forward.batching import plan_batches
from overedit.editing.model.partial_forward.shifted_suffix import PackedPass, ShiftedSuffix, tokens_that_fit
from overedit.editing.model.tokenization import pad

_BETAS, _EPSILON = (0.9, 0.999), 1e-8


class Values(NamedTuple):
    """Optimized values, one row per request, on the model's device; float32 (float64 for a float64 model)."""

    initial_ND: torch.Tensor
    """The site's unshifted output at the subject's last token of the bare prompt."""
    delta_ND: torch.Tensor
    """The shift; the value is the sum of the two."""
    first_losses_N: torch.Tensor
    last_losses_N: torch.Tensor
    num_steps_N: torch.Tensor
    """Evaluations of the loss, int64."""
    given_up_N: torch.Tensor
    """Whether the value is not used, so that the shift is 0 (see `anchor.py`), bool."""


def optimize_values(
    model: PreTrainedModel,
    site: str,
    prompt_sets: Sequence[PromptSet],
    options: ValueOptions,
    *,
    start_ND: torch.Tensor | None = None,
    progress: Progress = silent,
) -> Values:
    """Find the value of each request.

    Args:
        model: Bit-identical on return, gradient flags, training mode and hooks included.
        site: The site whose output is shifted: `<layer>.mlp` (ROME) or `<layer>.layer` (MEMIT).
        prompt_sets: At least one.
        options: Settings.
        start_ND: The values to start from; None: the unshifted outputs.
        progress: Called with (steps done, total steps), summed over the requests.

    Raises:
        ValueError: As `ShiftedSuffix`.
        torch.OutOfMemoryError: A single request does not fit (a RuntimeError on a CPU).
    """
    sequences = [marked for prompt_set in prompt_sets for marked in (*prompt_set.prompts, prompt_set.kl)]
    limit = options.max_tokens_per_pass or tokens_that_fit(model, site, sequences)
    batches = plan_batches([_num_tokens([prompt_set]) for prompt_set in prompt_sets], limit, padded=False)
    starts = [None] * len(prompt_sets) if start_ND is None else list(start_ND)
    groups = [[(prompt_sets[n], starts[n]) for n in batch] for batch in batches]
    found: list[Values] = []
    done = 0

    def advance(steps: int) -> None:
        progress(done * options.num_steps + steps, len(prompt_sets) * options.num_steps)

    def descend(group: Sequence[tuple[PromptSet, torch.Tensor | None]]) -> Values:
        start = [start_D for _, start_D in group if start_D is not None]
        sets = [prompt_set for prompt_set, _ in group]
        return _Descent(model, site, sets, options, torch.stack(start) if start else None).run(advance)

    def size(group: Sequence[tuple[PromptSet, torch.Tensor | None]]) -> int:
        return _num_tokens([prompt_set for prompt_set, _ in group])

    with frozen(model):
        for group, values in OomHalver().run(groups, descend, size=size):
            found.append(values)
            done += len(group)
    return Values(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _num_tokens(prompt_sets: Sequence[PromptSet]) -> int:
    return sum(marked.num_shifted for prompt_set in prompt_sets for marked in (*prompt_set.prompts, prompt_set.kl))


class _Batch(NamedTuple):
    """Requests that run together, with the indices of their sequences and read positions, padded with -1."""

    members: list[int]
    """Indices of the requests in the group."""
    packed: PackedPass
    owners_B: torch.Tensor
    """Index of each sequence's request in the group."""
    sequences_NK: torch.Tensor
    reads_NK: torch.Tensor
    kl_reads_N: torch.Tensor
    """Empty without a KL term."""
    labels_U: torch.Tensor
    """Target token at each read position; 0 where there is none."""
    checked_U: torch.Tensor
    """Whether the token has to be the most likely one for `stop_after_hits`."""
    weights_U: torch.Tensor
    """Weight of each target token in its request's loss."""


class _Loss(NamedTuple):
    """The loss of each member of a batch and its three terms, factors included."""

    total_N: torch.Tensor
    nll_N: torch.Tensor
    kl_N: torch.Tensor
    decay_N: torch.Tensor


class _Descent:
    """Optimizes the values of several requests together; tensors keep a row for requests that have stopped."""

    def __init__(
        self,
        model: PreTrainedModel,
        site: str,
        prompt_sets: Sequence[PromptSet],
        options: ValueOptions,
        start_ND: torch.Tensor | None,
    ) -> None:
        self._prompt_sets, self._options, self._device = prompt_sets, options, model.device
        self._dtype = torch.promote_types(model.dtype, torch.float32)
        # nothing after the KL prompt's marked position is read, so it is cut there
        kl = [(r.kl._replace(ids=r.kl.ids[: r.kl.position + 1]),) if options.kl_factor else () for r in prompt_sets]
        parts = [(*r.prompts, *last) for r, last in zip(prompt_sets, kl, strict=True)]
        first = list(accumulate(map(len, parts), initial=0))
        self._sequences = [range(*ends) for ends in pairwise(first)]
        self._suffix = ShiftedSuffix(model, site, [marked for marked_parts in parts for marked in marked_parts])
        self._initial_ND = self._suffix.site_BD[first[:-1]].to(self._dtype)
        self._sizes_N1 = self._initial_ND.norm(dim=1, keepdim=True)
        self._delta_ND, self._mean_ND, self._square_ND = (torch.zeros_like(self._initial_ND) for _ in range(3))
        if start_ND is not None:
            self._delta_ND = start_ND.to(self._initial_ND) - self._initial_ND
        self._first_log_p_NV = torch.empty(0)
        self._hits_N = torch.zeros(len(prompt_sets), dtype=torch.int64, device=self._device)

    def run(self, advance: Callable[[int], None]) -> Values:
        """Optimize until all have stopped or all steps are done; `advance` is called with the steps of all requests."""
        total, steps = len(self._prompt_sets), self._options.num_steps
        live, batch = list(range(total)), self._pack(range(total))
        first_losses_N = last_losses_N = self._initial_ND.new_empty(0)
        num_steps_N = torch.zeros(total, dtype=torch.int64, device=self._device)
        for step in range(steps):
            if 4 * self._num_tokens(live) <= 3 * batch.packed.num_tokens:
                batch = self._pack(live)
            shifts_BD = self._delta_ND[batch.owners_B].requires_grad_()
            logits_UV = self._suffix.logits_UV(batch.packed, shifts_BD)
            loss, gradient_UV = self._loss(batch, logits_UV.detach())
            rows = [batch.members.index(n) for n in live]
            if step == 0:
                first_losses_N, last_losses_N = loss.total_N, loss.total_N.clone()
            last_losses_N[live] = loss.total_N[rows]
            num_steps_N[live] += 1
            stopped_N = loss.total_N < self._options.stop_below
            if (most := self._options.stop_after_hits) is not None:
                stopped_N |= self._count_hits(batch, logits_UV) >= most
            rows = [row for row in rows if not stopped_N[row]]
            live = [batch.members[row] for row in rows]
            advance((step + 1) * total)
            if not live or step + 1 == steps:
                break
            (gradient_BD,) = torch.autograd.grad(logits_UV, shifts_BD, gradient_UV.to(logits_UV.dtype))
            self._update(live, _summed(gradient_BD, batch.sequences_NK[rows]), step + 1)
        given_up_N = torch.zeros_like(num_steps_N, dtype=torch.bool)
        return Values(self._initial_ND, self._delta_ND, first_losses_N, last_losses_N, num_steps_N, given_up_N)

    def _count_hits(self, batch: _Batch, logits_UV: torch.Tensor) -> torch.Tensor:
        """The steps so far, with this one, in which each member's target tokens were the most likely everywhere."""
        missed_U = (logits_UV.detach().argmax(-1) != batch.labels_U) & batch.checked_U
        self._hits_N[batch.members] += _summed(missed_U.long(), batch.reads_NK) == 0
        return self._hits_N[batch.members]

    def _num_tokens(self, members: Sequence[int]) -> int:
        return self._suffix.num_tokens([b for n in members for b in self._sequences[n]])

    def _pack(self, members: Sequence[int]) -> _Batch:
        labels: list[int] = []
        weights: list[float] = []
        checked: list[bool] = []
        reads, kl_reads = [], []
        for n in members:
            prompts, first = self._prompt_sets[n].prompts, len(labels)
            for number, marked in enumerate(prompts):
                labels += marked.target
                checked += [number > 0 or self._options.compat == "none"] * len(marked.target)
                weights += [1 / len(prompts) / len(marked.target)] * len(marked.target)
            if len(self._sequences[n]) > len(prompts):
                kl_reads.append(len(labels))
                labels, weights, checked = [*labels, 0], [*weights, 0.0], [*checked, False]
            reads.append(range(first, len(labels)))
        first_sequences = accumulate((len(self._sequences[n]) for n in members), initial=0)
        sequences = [range(*ends) for ends in pairwise(first_sequences)]
        device = self._device
        return _Batch(
            list(members),
            self._suffix.pack([b for n in members for b in self._sequences[n]]),
            torch.tensor([n for n in members for _ in self._sequences[n]], device=device),
            pad(sequences, value=-1).to(device),
            pad(reads, value=-1).to(device),
            torch.tensor(kl_reads, dtype=torch.int64, device=device),
            torch.tensor(labels, device=device),
            torch.tensor(checked, device=device),
            torch.tensor(weights, dtype=self._dtype, device=device),
        )

    def _loss(self, batch: _Batch, logits_UV: torch.Tensor) -> tuple[_Loss, torch.Tensor]:
        """The loss of each member of a batch, and the gradient of NLL and KL with respect to the logits."""
        log_p_UV = logits_UV.to(self._dtype).log_softmax(-1)
        kl_log_p_NV = log_p_UV[batch.kl_reads_N]
        if not self._first_log_p_NV.numel():
            self._first_log_p_NV = kl_log_p_NV
        nll_U, gradient_UV = cross_entropy_gradient(log_p_UV, batch.labels_U, batch.weights_U)
        nll_N = _summed(nll_U * batch.weights_U, batch.reads_NK)
        kl_N = torch.zeros_like(nll_N)
        if len(batch.kl_reads_N):
            p_NV = kl_log_p_NV.exp()
            gap_NV = kl_log_p_NV - self._first_log_p_NV[batch.members]
            kl_N = (p_NV * gap_NV).sum(1)
            gradient_UV[batch.kl_reads_N] = self._options.kl_factor * p_NV * (gap_NV - kl_N[:, None])
        norms_N = self._delta_ND[batch.members].norm(dim=1)
        decay_N = self._options.weight_decay * norms_N / self._sizes_N1[batch.members, 0].square()
        kl_N = kl_N * self._options.kl_factor
        return _Loss(nll_N + kl_N + decay_N, nll_N, kl_N, decay_N), gradient_UV

    def _update(self, live: list[int], gradient_ND: torch.Tensor, step: int) -> None:
        """One step of Adam (arXiv 1412.6980, algorithm 1; the usual rates) for the live requests, and the clamp."""
        options, delta_ND, sizes_N1 = self._options, self._delta_ND[live], self._sizes_N1[live]
        norms_N1 = delta_ND.norm(dim=1, keepdim=True)
        direction_ND = torch.where(norms_N1 > 0, delta_ND / norms_N1, 0)
        gradient_ND = gradient_ND + options.weight_decay / sizes_N1.square() * direction_ND
        mean_ND = torch.lerp(self._mean_ND[live], gradient_ND, 1 - _BETAS[0])
        square_ND = _BETAS[1] * self._square_ND[live] + (1 - _BETAS[1]) * gradient_ND.square()
        self._mean_ND[live], self._square_ND[live] = mean_ND, square_ND
        spread_ND = square_ND.sqrt() / math.sqrt(1 - _BETAS[1] ** step) + _EPSILON
        delta_ND = delta_ND - options.learning_rate / (1 - _BETAS[0] ** step) * mean_ND / spread_ND
        norms_N1, most_N1 = delta_ND.norm(dim=1, keepdim=True), options.clamp_norm_factor * sizes_N1
        self._delta_ND[live] = torch.where(norms_N1 > most_N1, delta_ND * (most_N1 / norms_N1), delta_ND)


def _summed(values_X: torch.Tensor, index_NK: torch.Tensor) -> torch.Tensor:
    """Deterministic sums of rows by index; an index of -1 adds nothing."""
    picked = values_X[index_NK.clamp_min(0)]
    missing = (index_NK < 0).view(*index_NK.shape, *[1] * (values_X.dim() - 1))
    return picked.masked_fill(missing, 0).sum(1)
