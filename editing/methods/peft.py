"""Parameter-efficient fine-tuning: adapters of the library peft, trained on the edits and merged into the weights.

A tuner writes the weight of a projection as a function of few values, W(theta), and only theta is trained:

    theta <- Adam(theta, grad loss(W(theta)))        then W <- W(theta)

LoRA (arXiv 2106.09685, section 4.1): W(theta) = W + alpha/r B A. docs/peft.md has all tuners. The order of training is
LocFT-BF's (`breadth_first`: epochs over all requests) or FT-M's (`depth_first`: each request to convergence); the
adapters are new in every turn, and what the turns before have merged is part of the weights.

Checked against: peft itself, whose adapted modules give the same logits as the merged weights (no golden data).

Differences from the reference: adapters of Conv1D are those of the transposed Linear; C3A and FourierFT start from no
change; AdaLoRA counts the steps that are taken, so training that ends early leaves more ranks than `target_r`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import EditResult, Method, Progress, Range, State, TurnSize, Work, silent
from overedit.editing.methods.fine_tuning.adapters import Adapters, seeded
from overedit.editing.methods.fine_tuning.breadth_first import Epochs, edit_breadth_first
from overedit.editing.methods.fine_tuning.depth_first import edit_depth_first
from overedit.editing.methods.fine_tuning.tuner import Tuning, encode_samples, tuning
from overedit.editing.methods.fine_tuning.tuners import check_options, check_tuner
from overedit.editing.model.anatomy import expanded
from overedit.editing.model.partial_forward.prefix_cache import PrefixOf
from overedit.editing.model.shape import ModelShape
from overedit.editing.requests import EditRequest


class Peft(Tuning):
    """Settings of the adapters and of their training; the defaults are those of LocFT-BF and FT-M."""

    method: Literal["peft"] = "peft"
    """The method's name."""
    tuner: str = "lora"
    """The kind of adapter, by its name in the library peft; docs/peft.md lists them."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The tuner's own settings, as in peft's configuration class, e.g. `{r: 16, lora_alpha: 32}`; peft's defaults."""
    sites: tuple[str, ...] = Field(min_length=1)
    """Where adapters are: projections, as `<layer>.<part>`, or all projections of a `layer`, an `attention` or an
    `mlp`; `4-8.down_proj` is that part of layers 4 to 8."""
    schedule: Literal["breadth_first", "depth_first"] = "breadth_first"
    """`breadth_first`: epochs over all edits so far, as LocFT-BF. `depth_first`: each edit to convergence, as FT-M."""
    batch_size: int = Field(default=100, ge=1)
    """Breadth first: requests of a step."""
    epochs: int = Field(default=25, ge=1)
    """Breadth first: the most passes over all requests."""
    max_steps: int = Field(default=25, ge=1)
    """Depth first: the most steps on one request."""
    stop_below: float = Field(default=1e-2, ge=0)
    """Loss in nats. Depth first, a request has converged below; breadth first, a batch takes no step and an epoch is
    the last."""
    restart: bool = True
    """Breadth first: at each edit count train from the base model, and not from the previous checkpoint's weights."""

    @field_validator("tuner")
    @classmethod
    def _accepted(cls, tuner: str) -> str:
        return check_tuner(tuner)

    @field_validator("sites", mode="before")
    @classmethod
    def _ranges(cls, sites: Any) -> Any:
        return [one for site in sites for one in expanded(site)] if isinstance(sites, list | tuple) else sites

    @field_validator("options")
    @classmethod
    def _checked(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        tuner = {**info.data}.get("tuner")  # absent where it was refused
        return options if tuner is None else check_options(tuner, options)

    @property
    def cumulative(self) -> bool:
        """Breadth first a turn trains all edits so far."""
        return self.schedule == "breadth_first"

    @property
    def restarts(self) -> bool:
        """Whether each edit count is trained from the base model."""
        return self.cumulative and self.restart

    def at_site(self, site: str) -> Self:
        """The same settings with adapters at one site."""
        return self.model_copy(update={"sites": (site,)})

    def work(self, shape: ModelShape, turn: TurnSize) -> Work:
        """As if the weights were trained: a tuner may form its change of them, and its gradient, in every step."""
        passes, batch = (self.epochs, self.batch_size) if self.cumulative else (self.max_steps, 1)
        return self.training(shape, turn, passes=passes, batch=batch)


def peft(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: Peft,
    state: State,
    *,
    seed: int = 0,
    progress: Progress = silent,
    prefix_of: PrefixOf | None = None,
) -> EditResult:
    """Train new adapters on the requests, and merge them.

    Args:
        model: The model to start from; bit-identical on return.
        tokenizer: Its tokenizer.
        requests: Breadth first the whole edit set, depth first this turn's requests in the order of editing.
        config: Settings.
        state: Not used: adapters and optimizer start afresh in every call.
        seed: Seed of the adapters' first values, of dropout, and of the order of the requests.
        progress: Called with (steps or requests done, all of them).
        prefix_of: Computes the activations below the lowest site; see `tuning`.

    Returns:
        The change of each adapted weight, as factors (LoRA, AdaLoRA) or as a difference, and no state.

    Raises:
        ValueError: A request that cannot be tokenised to a sample, or a site or options that do not fit the model.
    """
    samples = encode_samples(model, tokenizer, requests, append_eos=config.append_eos)
    epochs = Epochs(config.batch_size, config.epochs, config.stop_below, config.stop_below)
    steps = epochs.num_steps(len(samples)) if config.cumulative else config.max_steps * len(samples)
    adapters = partial(Adapters, model, config.sites, config.tuner, config.options, total_steps=steps)
    with seeded(seed, model.device), tuning(model, samples, config, trained=adapters, prefix_of=prefix_of) as tuner:
        breadth = partial(edit_breadth_first, epochs=epochs, restarts=config.restarts, seed=seed)
        depth = partial(edit_depth_first, max_steps=config.max_steps, stop_below=config.stop_below)
        log = (breadth if config.cumulative else depth)(tuner, len(samples), progress=progress)
        log["trained_values"] = sum(value.numel() for value in tuner.values.values())
        return EditResult(tuner.update(), {}, log)


METHOD = Method(
    config=Peft,
    function=peft,
    label="PEFT",
    paper="LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685, and its relatives (docs/peft.md)",
    presets=MappingProxyType({}),
    ranges=MappingProxyType({"learning_rate": Range(low=1e-5, high=1e-1, log=True), "epochs": Range(low=5, high=50)}),
)
