"""What every editing method is: a pure function from a model and requests to a weight update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel

from overedit.editing.model.weights import WeightUpdate

State = dict[str, torch.Tensor]
"""What a method carries from one turn to the next, by name; empty before the first turn."""

Progress = Callable[[int, int], None]
"""Told (steps done, steps in all)."""


def silent(done: int, total: int) -> None:
    """A progress that nobody watches."""


class EditResult(NamedTuple):
    """What one turn of a method gives."""

    update: WeightUpdate
    """The change of the weights, not applied."""
    state: State
    """To be passed to the next turn."""
    log: dict[str, float | int | str]
    """Figures worth keeping: losses, counts, norms."""


def needs_no_covariance(config: Any) -> None:
    """For methods that need to know nothing of the model's keys."""


class MethodEntry(NamedTuple):
    """A method's row in the registry."""

    config: type[BaseModel]
    function: Callable[..., EditResult]
    """`function(model, tokenizer, requests, config, state, *, seed=0, progress=silent)`; the model is bit-identical,
    its gradient flags, training mode and hooks too, on return."""
    label: str
    """What plots and tables call it."""
    cumulative: bool
    """A turn takes all edits so far (epochs over the whole set), not only the new ones."""
    needs_subject: bool
    """Requests must name their subject."""
    paper: str
    presets: Mapping[str, Any]
    """Model id -> published configuration."""
    sites: Callable[[Any], tuple[str, ...]]
    """The sites that a configuration edits."""
    covariance: Callable[[Any], Any] = needs_no_covariance
    """What a configuration needs to know of the pristine model's keys: its `CovarianceOptions`, or None. Where it is
    not None, the function is given one argument more, `covariance=`: site -> `SecondMoment`."""
