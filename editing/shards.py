"""Shards: parts of the edits that are made apart from each other, and whose weight changes are merged.

Any method can have them (`shards` in its configuration). Request i of the trajectory belongs to shard i mod k, so a
longer prefix deals the same way. In each turn the method is called once for each shard, with the shard's part of the
turn, on the weights and with the state that the same shard had after the turn before, and the seed of the turn. The
weights after the turn are

    W = W_0 + merge(W_1 - W_0, ..., W_k - W_0)

with W_i those of shard i; shards without an edit so far take no part. Nothing but the shards' own weights is carried
from one turn to the next, so the merged weights do not depend on the turns in which they were looked at.

The state holds the pristine values and every shard's values of the edited parameters, exact and in the model's dtype,
and every shard's state. A method that restarts from the pristine weights needs neither, and has no state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from overedit.editing.merging.rules import AnyMerge, Merge, total
from overedit.editing.model.weights import Replacement, WeightUpdate, applied, kept, read_tensors, write_tensors

_DEALT, _PRISTINE = "shards/dealt", "shards/pristine/"


class Shards(BaseModel):
    """How many shards, and how their changes are merged."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    count: int = Field(ge=1)
    """k: how many shards the requests are dealt to; 1 edits as without shards, to the bit."""
    merge: AnyMerge
    """`sum`, `mean`, `ties`, `dare_linear`, `dare_ties` or `pcb`, or one with its settings, as
    `{kind: pcb, keep: 0.05}`."""

    def __str__(self) -> str:
        """Both in short, for names of trajectories: `4 x pcb`."""
        return f"{self.count} x {self.merge}"

    @property
    def are_several(self) -> bool:
        """Whether there is anything to merge."""
        return self.count > 1

    def dealt(self, items: Sequence[Any], *, first: int = 0) -> list[Sequence[Any]]:
        """The items of each shard.

        Args:
            items: Consecutive requests of a trajectory.
            first: How many came before them.
        """
        return [items[(shard - first) % self.count :: self.count] for shard in range(self.count)]


@dataclass
class _Shard:
    """The edits of one shard so far."""

    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    """Edited parameters, on the CPU; empty before the first edit."""
    state: dict[str, torch.Tensor] = field(default_factory=dict)
    """The method's."""


@dataclass
class _Progress:
    """All shards after a turn."""

    pristine: dict[str, torch.Tensor]
    """The pristine values of every parameter that a shard has edited."""
    shards: list[_Shard]
    num_dealt: int = 0
    """Requests of the turns so far."""

    @classmethod
    def of(cls, state: Mapping[str, torch.Tensor], count: int) -> Self:
        """The shards that a state holds; pristine ones of an empty state."""
        shards = [
            _Shard(_below(state, f"shard{shard}/weights/"), _below(state, f"shard{shard}/state/"))
            for shard in range(count)
        ]
        return cls(_below(state, _PRISTINE), shards, int(state[_DEALT]) if _DEALT in state else 0)

    def state(self) -> dict[str, torch.Tensor]:
        """All of it, as tensors by name."""
        found = {_DEALT: torch.tensor(self.num_dealt)}
        found |= {f"{_PRISTINE}{name}": tensor for name, tensor in self.pristine.items()}
        for shard, each in enumerate(self.shards):
            found |= {f"shard{shard}/weights/{name}": tensor for name, tensor in each.weights.items()}
            found |= {f"shard{shard}/state/{name}": tensor for name, tensor in each.state.items()}
        return found

    @property
    def edited(self) -> list[_Shard]:
        """The shards with an edit."""
        return [shard for shard in self.shards if shard.weights]


def _below(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def sharded_turns(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that edits the shards of its configuration one by one, and merges their changes.

    Args:
        method: Takes the model first and the configuration as its fourth argument; returns an `EditResult`.

    Raises:
        ValueError: On a call with shards, if the method changes no weights.
    """

    @wraps(method)
    def edit(model: nn.Module, tokenizer: Any, requests: Any, config: Any, state: Any, **more: Any) -> Any:
        shards: Shards | None = config.shards
        if shards is None or not shards.are_several:
            return method(model, tokenizer, requests, config, state, **more)
        progress = _Progress.of(state, shards.count)
        first = 0 if config.cumulative else progress.num_dealt
        dealt = shards.dealt(requests, first=first)
        asked = [shard for shard, part in enumerate(dealt) if part]
        show = more.pop("progress", _silent)
        log: dict[str, Any] = {}
        result: Any = None
        with kept(model, progress.pristine):
            for done, shard in enumerate(asked):
                mine = progress.shards[shard]
                write_tensors(model, progress.pristine | mine.weights)
                report = _part_of(show, done, len(asked))
                result = method(model, tokenizer, dealt[shard], config, mine.state, progress=report, **more)
                _check_changes_weights(config, result.update)
                _take(progress, mine, model, result)
                log |= {f"shard{shard}/{key}": value for key, value in result.log.items()}
        progress.num_dealt = first + len(requests)
        update, merge_log = _merged(model, progress, shards.merge)
        assert result is not None, "a turn has requests"
        return result._replace(update=update, state={} if config.restarts else progress.state(), log=log | merge_log)

    return edit


def _take(progress: _Progress, shard: _Shard, model: nn.Module, result: Any) -> None:
    """Keep what one call for a shard returned; the model has the weights that it was called with."""
    progress.pristine |= read_tensors(model, [name for name in result.update if name not in progress.pristine])
    with applied(model, result.update):
        shard.weights |= read_tensors(model, result.update)
    shard.state = result.state


def _merged(model: nn.Module, progress: _Progress, merge: Merge) -> tuple[WeightUpdate, dict[str, float | int]]:
    """The weights with all shards' changes; for the log, how many shards have edits and the norm that is left."""
    edited, update = progress.edited, WeightUpdate()
    of_merged, of_sum = 0.0, 0.0
    for name, pristine in progress.pristine.items():
        values = [shard.weights.get(name, pristine) for shard in edited]
        if len(values) == 1:  # not the sum of the pristine values and a difference, which may round to a neighbour
            update[name] = Replacement(values[0])
            continue
        device = model.get_parameter(name).device
        dtype = torch.promote_types(pristine.dtype, torch.float32)
        start = pristine.to(device, dtype)
        deltas = [value.to(device, dtype) - start for value in values]
        found = merge.merged(deltas, name=name)
        of_merged += float(found.double().square().sum())
        of_sum += float(total(deltas).double().square().sum())
        update[name] = Replacement((start + found).to(pristine.dtype))
    norm_kept = (of_merged / of_sum) ** 0.5 if of_sum else 1.0
    return update, {"merge/shards": len(edited), "merge/norm_kept": norm_kept}


def _check_changes_weights(config: Any, update: Mapping[str, Any]) -> None:
    if not update:
        raise ValueError(
            f"shards.count: {config.shards.count} was given, but {config.method} keeps its edits beside the weights, "
            "so there are no changes to merge; accepted: 1, or no shards"
        )


def _part_of(show: Callable[[int, int], None], done: int, parts: int) -> Callable[[int, int], None]:
    """The progress of one of several calls, as that of all."""
    return lambda steps, of_steps: show(done * of_steps + steps, parts * of_steps)


def _silent(done: int, total: int) -> None:
    """Ignore the progress."""
