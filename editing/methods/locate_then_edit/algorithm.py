"""The algorithm that ROME, MEMIT, AlphaEdit and their relatives share; each supplies its own solver.

Following MEMIT (arXiv 2210.07229, algorithm 1), values are computed once: the output of the last edited layer at each
subject's last token for which the model predicts the target, optimized on the model before the turn (`values.py`). Then
for each layer in turn, on the model with the earlier layers already edited:

1. keys: the projection's input at the subject's last token, a mean over contexts (`keys.py`),
2. residual: the difference to the value that is left, of which this layer takes its share (`Distribution`),
3. solve: the method's own equation (`solvers.py`), and the write.

Shapes: N edits, I inputs and O outputs of a projection, C contexts of a request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Self

import torch
from pydantic import ConfigDict, Field, model_validator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import CovarianceOptions, EditResult, Progress, State, silent
from overedit.editing.methods.locate_then_edit.anchor import anchored
from overedit.editing.methods.locate_then_edit.contexts import ContextOptions, context_templates
from overedit.editing.methods.locate_then_edit.counts import edit_counts, of_batches
from overedit.editing.methods.locate_then_edit.covariance import SecondMoment
from overedit.editing.methods.locate_then_edit.diagnostics import diagnostics, value_log
from overedit.editing.methods.locate_then_edit.distribution import SHARES, Distribution
from overedit.editing.methods.locate_then_edit.keys import SubjectActivations
from overedit.editing.methods.locate_then_edit.solvers import KeyTargets, Solution
from overedit.editing.methods.locate_then_edit.subjects import encode_prompt_sets
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions
from overedit.editing.methods.locate_then_edit.values import optimize_values
from overedit.editing.methods.locate_then_edit.work import CountedWork
from overedit.editing.model.anatomy import Anatomy, stores_in_out
from overedit.editing.model.weights import LowRank, WeightUpdate, apply_update, kept, summed
from overedit.editing.requests import EditRequest


class LocateThenEdit(CountedWork):
    """Settings that all locate-then-edit methods share."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    layers: tuple[int, ...] = Field(min_length=1)
    """The edited layers, in increasing order; the value is optimized at the last."""
    part: Literal["down_proj", "o_proj"] = "down_proj"
    """The edited projection of each layer: the MLP's second one, the associative memory (ROME, section 3), or the
    attention's."""
    value_at: Literal["mlp", "layer"] = "layer"
    """Where the value is optimized: the last edited layer's MLP output (ROME) or its whole output (MEMIT)."""
    distribution: Distribution = "spread"
    """How the residual is spread over the layers: `single`, `spread`, `root`, or `own` with a value for each (BLUE)."""
    batch_size: int | None = Field(default=None, ge=1)
    """The most edits solved for together; None takes the whole turn."""
    values: ValueOptions = ValueOptions()
    """How values are optimized."""
    contexts: ContextOptions = ContextOptions()
    """The contexts in which keys and values are taken."""
    covariance: CovarianceOptions = CovarianceOptions(corpus="wikimedia/wikipedia:20231101.en")
    """The text from which C0, the covariance of the keys to preserve, is computed."""
    append_eos: bool = False
    """End each target with the end-of-sequence token. The papers do not; needed where free generation is scored, and
    done for all methods alike by arXiv 2509.22072, appendix A.1.1."""
    max_tokens_per_pass: int = Field(default=8192, ge=1)
    """Tokens per pass when keys are read, on a CPU at most 1,024; between layers the hidden states of 16 times as many
    tokens are kept, and those of others are computed again. Bounds memory, without effect on the result."""

    @model_validator(mode="after")
    def _in_order(self) -> LocateThenEdit:
        if any(later <= earlier for earlier, later in pairwise(self.layers)) or self.layers[0] < 0:
            raise ValueError(
                f"layers: {list(self.layers)} must increase, from 0 or more: each is edited after the last"
            )
        if self.distribution == "single" and len(self.layers) > 1:
            raise ValueError(
                f"distribution: 'single' edits one layer, layers names {len(self.layers)}; accepted: spread, root, own"
            )
        return self

    @property
    def sites(self) -> tuple[str, ...]:
        """The edited projections."""
        return tuple(f"{layer}.{self.part}" for layer in self.layers)

    def at_site(self, site: str) -> Self:
        """The same settings with one layer to edit; the site must be of the part that the settings name."""
        layer, _, part = site.partition(".")
        if part != self.part:
            raise ValueError(f"sites: {self.method} edits {self.part} here, and {site!r} is another part")
        return self.model_copy(update={"layers": (int(layer),)})

    @property
    def covariance_options(self) -> CovarianceOptions:
        """The text of C0."""
        return self.covariance

    @property
    def value_site(self) -> str:
        """The site at which values are optimized."""
        return f"{self.layers[-1]}.{self.value_at}"


class LayerProblem(NamedTuple):
    """The inputs of a solver at one layer."""

    site: str
    targets: KeyTargets
    """Mean keys over the contexts, and this layer's share of the residual."""
    bare_keys_IN: torch.Tensor
    """Keys of the bare prompts, float64."""
    moment: SecondMoment
    """C0 of this projection's keys."""
    weight_OI: torch.Tensor
    """The projection's weight, in the model's dtype: a view, to be read before the write."""
    share: float
    """The share of the residual that the layer takes."""
    state: State
    """The method's state before this batch."""


class Steps(NamedTuple):
    """The steps in which the methods differ."""

    solve: Callable[[LayerProblem, Any], Solution]
    """Solves the objective at one layer, given the method's configuration."""
    keys_in_residual: bool = False
    """Take the residual at the mean keys, not at the bare prompts (R-ROME)."""
    check: Callable[[Any, Mapping[str, SecondMoment]], None] = lambda config, covariance: None
    """Raises ValueError, before values are optimized, where a configuration cannot be solved with this C0."""
    remember: Callable[[Sequence[LayerProblem], Any], State] | None = None
    """Given the layers' problems, and the method's configuration: what to add to the state. A layer's keys do not
    depend on the write to it or to later layers, so they are those that would be read after the batch."""


def locate_then_edit(solve: Callable[[LayerProblem, Any], Solution], **steps: Any) -> Callable[..., EditResult]:
    """Make a method from its solver (and other fields of `Steps`) and the shared algorithm.

    Returns:
        `method(model, tokenizer, requests, config, state, *, covariance, seed=0, progress=silent)`, see
        `edit_in_batches`.
    """
    return partial(edit_in_batches, steps=Steps(solve, **steps))


def edit_layers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: LocateThenEdit,
    state: State,
    *,
    steps: Steps,
    covariance: Mapping[str, SecondMoment],
    seed: int,
    progress: Progress,
) -> EditResult:
    """Edit all requests at once, layer after layer; arguments, result and errors as `edit_in_batches`."""
    anatomy = Anatomy.of(model)
    weights = {site: anatomy.site_parameters(site)[0] for site in config.sites}
    templates, carried = context_templates(model, tokenizer, config.contexts, state, seed=seed)
    prompt_sets = encode_prompt_sets(model, tokenizer, requests, templates, append_eos=config.append_eos)
    subjects = SubjectActivations(model, prompt_sets, templates, config.max_tokens_per_pass)
    values = optimize_values(model, config.value_site, prompt_sets, config.values, progress=progress)
    norm: State = {}
    if (anchor := config.values.anchor) is not None:
        outputs_ND = subjects.outputs(f"{config.layers[-1]}.mlp", in_contexts=False).T
        values, norm = anchored(values, outputs_ND, anchor, state, config.value_site)
    wanted_ON = (values.initial_ND + values.delta_ND).double().T
    update: dict[str, LowRank] = {}
    problems: list[LayerProblem] = []
    at_last_layer = config.layers[-1] == anatomy.num_layers - 1
    log = value_log(values, norm) | edit_counts(prompt_sets, values, config.values, at_last_layer=at_last_layer)
    with kept(model, weights.values()):
        for done, site in enumerate(config.sites):
            share = SHARES[config.distribution](len(config.sites) - done)
            keys = subjects.keys(site)
            current_ON = subjects.outputs(config.value_site, in_contexts=steps.keys_in_residual)
            targets = KeyTargets(keys.mean_IN, (wanted_ON - current_ON) * share)
            in_out = stores_in_out(model.get_submodule(anatomy.site_module(site)))
            stored = model.get_parameter(weights[site]).detach()
            weight_OI = stored.T if in_out else stored
            problem = LayerProblem(site, targets, keys.bare_IN, covariance[site], weight_OI, share, state)
            problems.append(problem)
            solution = steps.solve(problem, config)
            update[weights[site]] = solution.as_update(model.dtype, in_out=in_out)
            apply_update(model, {weights[site]: update[weights[site]]})
            log |= {f"{site}/{name}": value for name, value in diagnostics(targets, problem.moment, solution).items()}
    if steps.remember is not None:
        carried |= steps.remember(problems, config)
    return EditResult(dict(update), carried | norm, log)


def edit_parts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: LocateThenEdit,
    state: State,
    **more: Any,
) -> EditResult:
    """Edit all requests at once: all layers for one value, or each for its own (`distribution: own`).

    Arguments, result and errors are those of `edit_layers`. With values of its own for each layer, the log's entries
    that are of no site are the last layer's.
    """
    if config.distribution != "own" or len(config.layers) == 1:
        return edit_layers(model, tokenizer, requests, config, state, **more)
    update: WeightUpdate = {}
    log: dict[str, float | int | str] = {}
    anatomy = Anatomy.of(model)
    with kept(model, [anatomy.site_parameters(site)[0] for site in config.sites]):
        for site in config.sites:
            result = edit_layers(model, tokenizer, requests, config.at_site(site), state, **more)
            apply_update(model, result.update)
            update |= result.update
            state, log = state | result.state, log | result.log
    return EditResult(update, state, log)


def edit_in_batches(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: LocateThenEdit,
    state: State,
    *,
    steps: Steps,
    covariance: Mapping[str, SecondMoment],
    seed: int = 0,
    progress: Progress = silent,
) -> EditResult:
    """Edit a turn in batches, each on the model as edited by the batches before.

    Args:
        model: The model to start from; bit-identical on return.
        tokenizer: Its tokenizer.
        requests: The turn's requests, at least one, each with its subject.
        config: Settings.
        state: State of the earlier turns: the context templates, and what `Steps.remember` added.
        steps: The method's own steps.
        covariance: C0 of the pristine model by site.
        seed: Seed of the sampling of contexts, in the first turn.
        progress: Called with (requests done, total requests); for a single batch, with the steps of the values.

    Returns:
        Low-rank factors for each site's weight, one rank per edit; the state; diagnostics by site, means over batches.

    Raises:
        ValueError: A request without its subject, or a site that is not a projection of the model.
    """
    steps.check(config, covariance)
    size = config.batch_size or len(requests)
    edit = partial(edit_parts, steps=steps, covariance=covariance, seed=seed)
    if size >= len(requests):
        return edit(model, tokenizer, requests, config, state, progress=progress)
    results: list[EditResult] = []
    anatomy = Anatomy.of(model)
    with kept(model, [anatomy.site_parameters(site)[0] for site in config.sites]):
        for first in range(0, len(requests), size):
            batch = requests[first : first + size]
            results.append(edit(model, tokenizer, batch, config, state, progress=silent))
            apply_update(model, results[-1].update)
            state = results[-1].state
            progress(first + len(batch), len(requests))
    log = of_batches([result.log for result in results])
    return EditResult(summed([result.update for result in results]), state, dict(log))
