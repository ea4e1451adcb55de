"""The contract of an editing method: its configuration, its function, its result, and its row in the registry.

A method is a pure function from a model and requests to a weight update. Each file of `editing/methods/` implements one
and ends with its `METHOD`; `editing/methods/registry.py` collects them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from transformers import PreTrainedModel

from overedit.editing.model.routing import Router
from overedit.editing.model.shape import ModelShape
from overedit.editing.model.weights import WeightUpdate
from overedit.editing.restraints import AnyRestraint
from overedit.editing.shards import Shards

State = dict[str, torch.Tensor]
"""What a method carries from one turn to the next, by name; empty before the first turn."""

Progress = Callable[[int, int], None]
"""Called with (steps done, total steps)."""


def silent(done: int, total: int) -> None:
    """Ignore the progress."""


class CovarianceOptions(BaseModel):
    """Which text the covariance of the keys is computed from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    corpus: str
    """Where the texts come from.

    `pocket` (the training texts of the shipped model), a local file (.txt, one text per line; JSON, JSONL or Parquet
    rows with a field `text` or `Text`), or a dataset on the hub: `owner/name` or `owner/name:configuration`, optionally
    followed by `@commit`.
    """
    num_samples: int | None = Field(default=100_000, ge=1)
    """How many texts are read, from the first on: 100,000 in ROME and MEMIT; None reads all."""
    max_length: int = Field(default=512, ge=1, le=4096)
    """Tokens after which a text is cut, at most the model's context. ROME and MEMIT take the whole context, 1,024 and
    2,048 tokens for their models; memory grows with the length."""
    path: Path | None = None
    """A covariance file, or a folder with one file per site, to read instead of computing; it must be of this model."""
    dtype: Literal["float32", "float64"] = "float32"
    """The dtype of C0 on the disk. C0 is summed and used in float64 either way, and always rounded to this dtype in
    between, whether it was read or has just been computed."""


class TurnSize(NamedTuple):
    """The requests of one call of a method, for counting what it takes: means over them."""

    num_edits: int
    prompt_tokens: float
    """Tokens of a prompt."""
    target_tokens: float
    """Tokens of a target."""

    @property
    def tokens(self) -> float:
        """Tokens of all requests, prompts and targets."""
        return self.num_edits * (self.prompt_tokens + self.target_tokens)

    @property
    def targets(self) -> float:
        """Tokens of all targets."""
        return self.num_edits * self.target_tokens


class Work(NamedTuple):
    """What one call of a method takes, at most: it may stop early."""

    operations: float
    """Floating-point operations; those in float64 count twice."""
    num_bytes: float
    """Memory at its peak, beside the model's weights."""
    state_bytes: float = 0
    """The method's state after the call; it is part of every checkpoint."""
    setup_operations: float = 0
    """Operations of the first call of a trajectory alone."""


class MethodConfig(BaseModel):
    """Base class of every method's configuration; a subclass narrows `method` to its own name."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    needs_subject: ClassVar[bool] = False
    """Requests must name their subject."""
    takes_prefix: ClassVar[bool] = False
    """The function takes `prefix_of`, so that several sites can share the forward passes below them."""

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Complete a partly given group of fields by the method's own defaults, not by those of the group's class."""
        if not isinstance(given, dict):
            return given
        defaults = {name: cls.model_fields[name].default for name in given if name in cls.model_fields}
        nested = {
            name: default.model_dump() | given[name]
            for name, default in defaults.items()
            if isinstance(default, BaseModel) and isinstance(given[name], dict)
        }
        return given | nested

    restraint: AnyRestraint | None = None
    """What is taken out of a weight change: `rect`, `sphere`, `prune`, `truncate` or `dare`, or one with its settings,
    as `{kind: rect, keep: 0.2}`."""
    shards: Shards | None = None
    """Parts of the edits that are made apart from each other and merged, as `{count: 4, merge: pcb}`."""

    if TYPE_CHECKING:  # fields of the subclasses, or properties: pydantic refuses a base class that has them too

        @property
        def method(self) -> str:
            """The method's name."""

        @property
        def sites(self) -> tuple[str, ...]:
            """The sites to edit, as `<layer>.<part>`."""

    def at_site(self, site: str) -> Self:
        """The same settings with one site in place of those that they name.

        Raises:
            ValueError: The method does not edit such a site.
        """
        raise ValueError(f"sites: {self.method} has no sites that others can replace; {site!r} was asked for")

    @property
    def covariance_options(self) -> CovarianceOptions | None:
        """Which covariance of the pristine model's keys the method needs; None for methods that need none.

        Where it is not None, the function is given `covariance=`: name -> `SecondMoment`, for all `covariances`.
        """
        return None

    @property
    def covariances(self) -> tuple[str, ...]:
        """The names of the second moments that the method needs: a site means the covariance of its keys."""
        return self.sites

    def work(self, shape: ModelShape, turn: TurnSize) -> Work:
        """What one call takes: the default of methods that do not say, which is that of one step of training.

        A forward and a backward pass over all tokens, all activations kept, with the gradients of the edited weights;
        those weights, their gradient and an optimizer's two moments in float32. No state.

        Args:
            shape: The model's.
            turn: The requests of the call.
        """
        weights = shape.values(self.sites)
        operations = 2 * (shape.forward(turn.tokens) + shape.head(turn.targets)) + 2 * weights * turn.tokens
        kept = shape.kept_bytes(turn.tokens, layers=shape.num_layers) + shape.logits_bytes(turn.targets)
        return Work(operations, 16 * weights + kept)

    def work_of_shards(self, shape: ModelShape, turn: TurnSize) -> Work:
        """What one call takes with the shards of the settings; without shards, `work`.

        The calls of all shards one after the other; their states; the pristine and each shard's values of the edited
        parameters, which are part of the state unless the method restarts. Merging: some twenty operations for each
        entry and shard; in float32, for one parameter at a time, two tensors of its size for each shard and a dozen.

        Args:
            shape: The model's.
            turn: The requests of the call.
        """
        if self.shards is None or not self.shards.are_several:
            return self.work(shape, turn)
        parts = [len(part) for part in self.shards.dealt(range(turn.num_edits)) if part]
        works = [self.work(shape, turn._replace(num_edits=size)) for size in parts]
        count, edited = self.shards.count, shape.values(self.sites) * shape.itemsize
        weights, state = (count + 1) * edited, count * max(work.state_bytes for work in works)
        merging = 4 * (2 * count + 12) * shape.largest(self.sites)
        return Work(
            operations=sum(work.operations for work in works) + 20 * count * shape.values(self.sites),
            num_bytes=max(edited + max(work.num_bytes for work in works), merging) + (weights if self.restarts else 0),
            state_bytes=0 if self.restarts else weights + state + 8,
            setup_operations=sum(work.setup_operations for work in works),
        )

    @property
    def cumulative(self) -> bool:
        """Whether a turn takes all edits so far (epochs over the whole set), not only the new ones."""
        return False

    @property
    def restarts(self) -> bool:
        """Whether a cumulative method trains from the pristine weights in every turn."""
        return False


class Range(BaseModel):
    """The values that a search may give to a setting: an interval or a list of choices.

    A configuration may write `[low, high]` (two numbers; whole ones give whole numbers) or `[choice, choice, ...]`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    low: int | float | None = None
    """The smallest value."""
    high: int | float | None = None
    """The largest value, included."""
    log: bool = False
    """Whether the search treats ratios alike, and not differences."""
    choices: tuple[Any, ...] | None = None
    """The values, instead of an interval."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: Any) -> Any:
        if not isinstance(given, list | tuple):
            return given
        ends = [_as_number(end) for end in given]
        is_interval = len(ends) == 2 and None not in ends
        return {"low": ends[0], "high": ends[1]} if is_interval else {"choices": tuple(given)}

    @model_validator(mode="after")
    def _has_values(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or not self.choices:
                raise ValueError("a list of choices has at least one, and neither low nor high")
        elif self.low is None or self.high is None or self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"from {self.low} to {self.high} is no interval; accepted: low below high, with log above 0, or choices"
            )
        return self

    @property
    def examples(self) -> tuple[Any, ...]:
        """The choices, or the two ends."""
        return (self.low, self.high) if self.choices is None else self.choices


def _as_number(value: Any) -> int | float | None:
    """A value as a number; YAML reads 1e-5 as a text. None for everything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


class EditResult(NamedTuple):
    """What one turn of a method returns."""

    update: WeightUpdate
    """The change of the weights, not applied."""
    state: State
    """Input of the next turn."""
    log: dict[str, float | int | str]
    """Losses, counts and norms, for the record."""


class Method(NamedTuple):
    """A method's row in the registry."""

    config: type[MethodConfig]
    function: Callable[..., EditResult]
    """`function(model, tokenizer, requests, config, state, *, seed=0, progress=silent)`. The model is bit-identical on
    return, and so are its gradient flags, training mode and hooks."""
    label: str
    """Its name in plots and tables."""
    paper: str
    presets: Mapping[str, MethodConfig]
    """Model id -> published configuration."""
    ranges: Mapping[str, Range] = MappingProxyType({})
    """Setting, as a dotted key -> the values among which `overedit tune` searches, whatever the model."""
    router: Callable[[PreTrainedModel, Any, State], Router] | None = None
    """For a method that keeps its edits beside the weights: `router(model, config, state)` makes a model use them."""

    @property
    def name(self) -> str:
        """The value of `method` in its configuration."""
        return str(self.config.model_fields["method"].default)
