"""Fine-tuning: the samples, loss and optimizer steps shared by LocFT-BF, CrispEdit, FT-L, FT-M and adapters (`peft`).

A method decides which samples form a step, how many steps to take, and when to stop; `trainable.py` says what a step
changes; everything else is here. The model is never written to.

Shapes: B samples of a pass, T tokens, U positions whose logits are read, L loss terms, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import MethodConfig, TurnSize, Work
from overedit.editing.methods.fine_tuning.trainable import SiteWeights, Trainable
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.hooks import frozen, standing_in
from overedit.editing.model.memory import OomHalver
from overedit.editing.model.partial_forward.batching import length_groups, padded_tokens
from overedit.editing.model.partial_forward.prefix_cache import Prefix, PrefixOf, compute_prefix
from overedit.editing.model.partial_forward.shared_prefix import SharedPrefix
from overedit.editing.model.partial_forward.trained_suffix import Suffix
from overedit.editing.model.shape import ModelShape
from overedit.editing.model.streaming import is_streamed
from overedit.editing.model.tokenization import TokenPair, encode_requests
from overedit.editing.model.weights import WeightUpdate
from overedit.editing.requests import EditRequest

Objective = Literal["answer", "prompt_last", "target_last"]


class Tuning(MethodConfig):
    """Settings that all fine-tuning methods share, whatever they train."""

    takes_prefix: ClassVar[bool] = True

    learning_rate: float = Field(default=5e-4, gt=0)
    """Step size of Adam, constant (arXiv 2509.22072, published settings)."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Adam's L2 term (arXiv 2509.22072, published settings)."""
    append_eos: bool = True
    """End each target with the end-of-sequence token, for every method alike (arXiv 2509.22072, appendix A.1.1)."""
    frozen_prefix: bool = True
    """Compute the activations before the site once per request instead of at every step; the losses are the same."""
    prefix_gib: float = Field(default=16.0, ge=0)
    """Upper bound of the cached activations, on the model's device; above it less is cached, or nothing."""
    max_tokens_per_pass: int = Field(default=16384, ge=1)
    """Tokens of one forward pass, padding included: bounds memory. The gradients of a larger batch are summed."""

    @property
    def first_site(self) -> str:
        """Where a training step starts: the only site of the lowest layer, or that layer."""
        layers = [int(site.partition(".")[0]) for site in self.sites]
        there = {site for site, layer in zip(self.sites, layers, strict=True) if layer == min(layers)}
        return there.pop() if len(there) == 1 else f"{min(layers)}.layer"

    def training(self, shape: ModelShape, turn: TurnSize, *, passes: int, batch: int) -> Work:
        """Operations and bytes of training the weights of the sites.

        With layers 0 to l below and m above, per token: 2 P l once, if the prefix is cached, and 4 P m (forward,
        backward) and 4 W (the site's product, and its gradient) in each pass. Bytes: the site in float32 five times
        (value, gradient, its sum, Adam's two moments) and once in the model's dtype, the cache, the activations kept.

        Args:
            shape: The model's.
            turn: The requests.
            passes: How often each request is trained.
            batch: Requests of a step.
        """
        weights, layer = shape.values(self.sites), shape.first_layer(self.sites)
        site = self.first_site
        width = shape.hidden + (shape.projections[site].inputs if site in shape.projections else 0)
        cached = turn.tokens * width * shape.itemsize
        is_cached = self.frozen_prefix and cached <= self.prefix_gib * 2**30
        share = min(batch, turn.num_edits) / turn.num_edits
        fit = min(1.0, self.max_tokens_per_pass / max(share * turn.tokens, 1))
        above = shape.num_layers - layer
        step = 2 * shape.forward(turn.tokens, layers=above) + 2 * shape.head(turn.targets) + 4 * weights * turn.tokens
        below = shape.forward(turn.tokens, layers=layer)
        kept = shape.kept_bytes(share * turn.tokens, layers=above) + shape.logits_bytes(share * turn.targets)
        passing = shape.passing_bytes(min(turn.tokens, self.max_tokens_per_pass))
        return Work(
            operations=passes * step + (below if is_cached else passes * below),
            num_bytes=weights * (20 + shape.itemsize) + cached * is_cached + max(fit * kept, passing),
        )


class SiteTuning(Tuning):
    """Settings of the methods that train the weights of one site."""

    site: str = "6.down_proj"
    """The weights that are trained, as `<layer>.<part>`; published for Qwen2.5-7B (arXiv 2509.22072, table 2)."""

    @property
    def sites(self) -> tuple[str, ...]:
        """The trained site."""
        return (self.site,)

    def at_site(self, site: str) -> Self:
        """The same settings with another site to train."""
        return self.model_copy(update={"site": site})


class Sample(NamedTuple):
    """One request as tokens, and the terms of its loss, which is their mean."""

    ids: tuple[int, ...]
    """Prompt and target, tokenised together."""
    positions: tuple[int, ...]
    """For each loss term, the position whose next-token distribution is read."""
    labels: tuple[int, ...]
    """For each loss term, the token to make likely there."""


def encode_samples(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    *,
    append_eos: bool,
    objective: Objective = "answer",
) -> list[Sample]:
    """Tokenise each prompt and target as one text.

    Args:
        model: Only its context length is read.
        tokenizer: The model's.
        requests: At least one.
        append_eos: Append the end-of-sequence token to each target.
        objective: `answer` reads each target token at the position before it; `prompt_last` reads every target token at
            the prompt's last position; `target_last` reads only the target's last token.

    Raises:
        ValueError: As `encode_requests`.
    """
    pairs = encode_requests(model, tokenizer, requests, append_eos=append_eos)
    return [_sample(pair, objective) for pair in pairs]


def _sample(pair: TokenPair, objective: Objective) -> Sample:
    ids, before_target = pair.prompt + pair.target, len(pair.prompt) - 1
    if objective == "prompt_last":
        return Sample(pair.prompt, (before_target,) * len(pair.target), pair.target)
    if objective == "target_last":
        return Sample(ids, (len(ids) - 2,), pair.target[-1:])
    return Sample(ids, tuple(range(before_target, len(ids) - 1)), pair.target)


@contextmanager
def tuning(
    model: PreTrainedModel,
    samples: Sequence[Sample],
    config: Tuning,
    *,
    trained: Callable[[], Trainable] | None = None,
    norm_constraint: float | None = None,
    prefix_of: PrefixOf | None = None,
) -> Iterator[Tuner]:
    """Make sites of a model trainable on samples; the model is restored at the end of the block.

    Args:
        model: Training mode and gradient flags are restored too.
        samples: All samples of all steps.
        config: Sites, optimizer and memory settings.
        trained: Makes what is trained, while the model is frozen; by default the weights of the sites.
        norm_constraint: How far any of these weights may move from its value at `Tuner.start`.
        prefix_of: Computes the prefix; a `SharedPrefix` computes those of several sites together, and by default that
            of one site whose model has streamed weights.
    """
    names = [name for site in config.sites for name in Anatomy.of(model).site_parameters(site)]
    with frozen(model):
        prefix = (prefix_of or (SharedPrefix() if is_streamed(model) else compute_prefix))(
            model,
            config.first_site,
            [sample.ids for sample in samples],
            max_bytes=int(config.prefix_gib * 2**30) if config.frozen_prefix else 0,
            max_tokens_per_pass=config.max_tokens_per_pass,
        )
        suffix = Suffix(model, config.first_site, prefix)
        trainable = SiteWeights(model, names, norm_constraint) if trained is None else trained()
        with standing_in(suffix.stand_ins | dict(trainable.stand_ins)), torch.enable_grad():
            yield Tuner(trainable, suffix, samples, config)


class Tuner:
    """The steps that train what is trainable."""

    def __init__(self, trainable: Trainable, suffix: Suffix, samples: Sequence[Sample], config: Tuning) -> None:
        self._trainable, self._suffix, self._samples, self._config = trainable, suffix, samples, config
        self._halving = OomHalver()
        self.start()

    @property
    def values(self) -> Mapping[str, torch.Tensor]:
        """Name -> trained values, float32, on the model's device."""
        return self._trainable.values

    @property
    def prefix(self) -> Prefix:
        """The cached activations of the frozen part."""
        return self._suffix.prefix

    def start(self) -> None:
        """Start from the present values with a fresh optimizer."""
        self.optimizer = torch.optim.Adam(
            list(self.values.values()), self._config.learning_rate, weight_decay=self._config.weight_decay, fused=True
        )
        """Adam over `values`, in their order; a method may give it hooks, or the moments of an earlier turn."""
        self._trainable.start()

    def step(
        self, batch: Sequence[int], *, average: Literal["sample", "token"] = "sample", skip_below: float = 0.0
    ) -> float:
        """Take one optimizer step on a batch, unless the batch's loss is below `skip_below`.

        Args:
            batch: Indices of the samples.
            average: `sample`: mean over each sample's terms, then over samples. `token`: mean over all terms.
            skip_below: In nats.

        Returns:
            The batch's loss before the step, in nats, computed in float32.
        """
        self.optimizer.zero_grad(set_to_none=True)
        lengths, values, loss = self.prefix.lengths, list(self.values.values()), 0.0
        groups = length_groups(lengths, batch, self._config.max_tokens_per_pass)
        num_terms = sum(len(self._samples[n].labels) for n in batch)

        def run(group: Sequence[int]) -> tuple[float, Sequence[torch.Tensor]]:
            shares = [1 / (len(batch) * len(self._samples[n].labels)) for n in group]
            part = self.loss(group, shares if average == "sample" else [1 / num_terms] * len(group))
            skipped = len(group) == len(batch) and part.item() < skip_below
            return part.item(), () if skipped else torch.autograd.grad(part, values)

        for _, (part, gradients) in self._halving.run(groups, run, size=lambda group: padded_tokens(lengths, group)):
            loss += part
            _accumulate(values, gradients)
        if not loss < skip_below:  # a NaN loss takes its step, so that the damage shows
            self._add_penalty()
            self.optimizer.step()
            self._trainable.stepped()
        return loss

    def _add_penalty(self) -> None:
        """Add the gradient of what the trained values cost by themselves."""
        if (penalty := self._trainable.penalty()) is not None:
            values = list(self.values.values())
            _accumulate(values, torch.autograd.grad(penalty, values, allow_unused=True, materialize_grads=True))

    def loss(self, group: Sequence[int], shares: Sequence[float]) -> torch.Tensor:
        """Weighted sum of the negative log-likelihoods of all terms of the chosen samples, one forward pass.

        Args:
            group: Indices of the samples.
            shares: The weight of each term of each of these samples.

        Returns:
            A float32 scalar whose gradient flows to `values`.
        """
        samples = [self._samples[n] for n in group]
        rows_BT = self.prefix.rows(group)
        length = rows_BT.shape[1]
        positions = [b * length + position for b, sample in enumerate(samples) for position in sample.positions]
        reads = {position: u for u, position in enumerate(dict.fromkeys(positions))}
        device = rows_BT.device
        weights = [share for share, sample in zip(shares, samples, strict=True) for _ in sample.labels]
        weights_L = torch.tensor(weights, dtype=torch.float32, device=device)
        labels_L = torch.tensor([label for sample in samples for label in sample.labels], device=device)
        terms_L = torch.tensor([reads[position] for position in positions], device=device)
        parameters = self._trainable.parameters()
        logits_UV = self._suffix.logits_UV(parameters, rows_BT, torch.tensor(list(reads), device=device)).float()
        nll_L = logits_UV.logsumexp(-1)[terms_L] - logits_UV[terms_L, labels_L]
        return (weights_L * nll_L).sum()

    def update(self) -> WeightUpdate:
        """The change of the model's weights; see `Trainable.update`."""
        return self._trainable.update()


def _accumulate(values: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
    """Add gradients, if there are any; torch's fused Adam reads one with other strides than its value wrongly."""
    for value, gradient in zip(values, gradients, strict=False):
        value.grad = gradient.contiguous() if value.grad is None else value.grad + gradient
