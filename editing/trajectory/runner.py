"""The trajectory: a model edited turn by turn, with a checkpoint at each scheduled edit count.

Turns end at the scheduled counts and after `turn_size` edits, so where they lie depends on the schedule alone. Each
turn's seed is derived from the trajectory's seed and the turn's place, so a trajectory continued from its newest
whole checkpoint ends with the same bits as one that was never stopped. Between two counts an interim checkpoint is
written every ten minutes, and when a stop is asked for; it goes when the next count is reached.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.method import MethodEntry, Progress, State, silent
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.memory import peak_bytes, reset_peak
from overedit.editing.model.weights import apply_update, read_tensors, write_tensors
from overedit.editing.requests import EditRequest
from overedit.editing.storage.atomic import remove_leftovers
from overedit.editing.storage.disk_space import check_space
from overedit.editing.trajectory.checkpoint import (
    Checkpoint,
    Costs,
    DamagedCheckpointError,
    Norms,
    num_bytes,
    read_checkpoint,
    whole_checkpoints,
    write_checkpoint,
)
from overedit.editing.trajectory.interruption import EVERY_TEN_MINUTES, CheckpointPolicy, StoppedError

logger = logging.getLogger(__name__)

INTERIM = "interim"
"""The folder of a trajectory's interim checkpoint."""


class Schedule(NamedTuple):
    """Where a trajectory stops, and how many edits one call of the method takes."""

    edit_counts: tuple[int, ...]
    """Increasing, above 0: a checkpoint is written at each."""
    turn_size: int
    """The most edits a turn takes; cumulative methods take all edits so far in one turn."""
    seed: int = 0


class Source(NamedTuple):
    """What a trajectory is made from; goes into its checkpoints."""

    key: str
    model: str
    model_digest: str


def run_trajectory(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: BaseModel,
    *,
    method: MethodEntry,
    schedule: Schedule,
    source: Source,
    folder: Path,
    inputs: Mapping[str, Any] = MappingProxyType({}),
    interim: CheckpointPolicy = EVERY_TEN_MINUTES,
    progress: Progress = silent,
) -> Iterator[Checkpoint]:
    """Edit a model to the last scheduled count and yield the checkpoint at each; what lies there already is not redone.

    The model is changed while this runs and has its own weights again at the end.

    Args:
        model: The pristine model.
        tokenizer: Its tokenizer.
        requests: At least as many as the last edit count, in the order of editing.
        config: The method's configuration.
        method: The method's entry in the registry.
        schedule: Where to stop, and the size of a turn.
        source: What the trajectory is made from.
        folder: Where its checkpoints lie, one folder an edit count.
        inputs: What else the method is told in every turn, argument -> value, made from the pristine model.
        interim: When to write what there is between two counts.
        progress: Told (edits done, edits in all).

    Raises:
        ValueError: The schedule is not increasing or asks for more edits than there are.
        StoppedError: A stop was asked for; the same call continues behind the last turn.
        NoSpaceError: The disk has no room for the checkpoints to come; those that are there are whole.
    """
    check_counts(schedule.edit_counts, len(requests))
    remove_leftovers(folder)
    done = {checkpoint.record.edit_count: checkpoint for checkpoint in whole_checkpoints(folder, source.key)}
    told = method._replace(function=partial(method.function, **inputs))
    run = _Editor(model, tokenizer, requests, config, told, schedule, interim, progress)
    try:
        for stop in schedule.edit_counts:
            if stop in done:
                run.take_over(done[stop])
                checkpoint = done[stop]
            else:
                run.check_space(folder, [count for count in schedule.edit_counts if count not in done])
                checkpoint = done[stop] = run.edit_to(stop, source, folder)
            progress(checkpoint.record.edit_count, schedule.edit_counts[-1])
            yield checkpoint
            if not checkpoint.record.finite:
                return
    finally:
        write_tensors(model, run.base)


class _Stretch(NamedTuple):
    """What leads from one scheduled count to the next, begun anew or behind an interim checkpoint."""

    first: int
    """Edits before it."""
    log: list[dict[str, Any]]
    turn_seconds: list[float]
    begun: float
    """Of the performance counter, time spent before an interruption taken off."""
    peak_bytes: int
    """Before an interruption."""


class _Editor:
    """A model on its way: where it stands, and how it goes on."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[EditRequest],
        config: BaseModel,
        method: MethodEntry,
        schedule: Schedule,
        interim: CheckpointPolicy,
        progress: Progress,
    ) -> None:
        self.model, self.tokenizer, self.requests, self.config = model, tokenizer, requests, config
        self.method, self.schedule, self.interim, self.progress = method, schedule, interim, progress
        self.edit_count, self.turns = 0, 0
        self.state: State = {}
        self.base: dict[str, torch.Tensor] = {}
        self.restarts = method.cumulative and getattr(config, "schedule", "continue") == "restart"

    def take_over(self, checkpoint: Checkpoint) -> None:
        """Stand where a checkpoint stands."""
        tensors, state = checkpoint.tensors(), checkpoint.state()
        self._keep_base(tensors)
        write_tensors(self.model, self.base | tensors)
        self.state = state
        self.edit_count, self.turns = checkpoint.record.edit_count, checkpoint.record.turns

    def check_space(self, folder: Path, counts: Sequence[int]) -> None:
        """Look for room for the checkpoints to come, an interim one and the one that is being written, ahead.

        The state's size is known once there is one; a method may edit less than its sites hold.
        """
        edited = {name: self.model.get_parameter(name) for name in self.base or self._sites()}
        size = num_bytes(edited) + num_bytes(self.state)
        check_space(folder, size * (len(counts) + 1), f"the checkpoints at {', '.join(map(str, counts))} edits")

    def _sites(self) -> list[str]:
        anatomy, sites = Anatomy.of(self.model), self.method.sites(self.config)
        return [name for site in sites for name in anatomy.site_parameters(site)]

    def edit_to(self, stop: int, source: Source, folder: Path) -> Checkpoint:
        """Apply turns until `stop` edits are in, or a weight is no longer finite, and write the checkpoint."""
        stretch, there, asked = self._go_on(stop, source, folder), False, False
        kept = time.perf_counter()
        while not (there or asked):
            begun = time.perf_counter()
            stretch.log.append(self._turn(stop))
            stretch.turn_seconds.append(round(time.perf_counter() - begun, 6))
            there = self.edit_count == stop or not stretch.log[-1]["finite"]
            asked = self.interim.stop_asked()
            if not there and (asked or time.perf_counter() - kept >= self.interim.seconds):
                self._write(folder / INTERIM, source, stretch)
                kept = time.perf_counter()
        if there:
            checkpoint = self._write(folder / f"{self.edit_count:08d}", source, stretch)
            shutil.rmtree(folder / INTERIM, ignore_errors=True)
        if asked:
            raise StoppedError(f"stopped after {self.edit_count} edits, as asked")
        return checkpoint

    def _go_on(self, stop: int, source: Source, folder: Path) -> _Stretch:
        """Begin what leads to the next count, or go on where an interim checkpoint stands."""
        reset_peak()
        first = self.edit_count
        try:
            interim = read_checkpoint(folder / INTERIM) if (folder / INTERIM).is_dir() else None
            if interim is None or interim.record.key != source.key or not first < interim.record.edit_count < stop:
                return _Stretch(first, [], [], time.perf_counter(), 0)
            self.take_over(interim)
        except DamagedCheckpointError as error:
            logger.warning("passed over a damaged interim checkpoint: %s", error)
            return _Stretch(first, [], [], time.perf_counter(), 0)
        log, costs = list(interim.record.log), interim.costs
        begun = time.perf_counter() - costs.seconds
        return _Stretch(first, log, list(costs.turn_seconds), begun, costs.peak_memory_bytes)

    def _write(self, folder: Path, source: Source, stretch: _Stretch) -> Checkpoint:
        seconds = time.perf_counter() - stretch.begun
        tensors = read_tensors(self.model, list(self.base))
        record = source._asdict() | {
            "edit_count": self.edit_count,
            "method": self.config.model_dump(mode="json"),
            "seed": self.schedule.seed,
            "turns": self.turns,
            "finite": all(bool(tensor.isfinite().all()) for tensor in tensors.values()),
            "log": stretch.log,
            "norms": {name: Norms.of(tensor, self.base[name]) for name, tensor in tensors.items()},
        }
        costs = Costs(
            seconds=seconds,
            num_edits=self.edit_count - stretch.first,
            peak_memory_bytes=max(stretch.peak_bytes, peak_bytes()),
            turn_seconds=tuple(stretch.turn_seconds),
        )
        return write_checkpoint(folder, tensors=tensors, state=self.state, record=record, costs=costs)

    def _turn(self, stop: int) -> dict[str, Any]:
        end = stop if self.method.cumulative else min(stop, self.edit_count + self.schedule.turn_size)
        first = 0 if self.method.cumulative else self.edit_count
        if self.restarts:
            write_tensors(self.model, self.base)
        result = self.method.function(
            self.model,
            self.tokenizer,
            self.requests[first:end],
            self.config,
            self.state,
            seed=turn_seed(self.schedule.seed, first, end),
            progress=self._inner_progress(end),
        )
        self._keep_base(result.update)
        apply_update(self.model, result.update)
        self.state, self.edit_count, self.turns = result.state, end, self.turns + 1
        parameters = dict(self.model.named_parameters())
        finite = all(bool(parameters[name].isfinite().all()) for name in result.update)
        return {"first": first + 1, "last": end, "finite": finite, **result.log}

    def _inner_progress(self, end: int) -> Progress:
        """A method counts its own steps; whoever watches the trajectory counts edits."""
        first, last = self.edit_count, self.schedule.edit_counts[-1]
        return lambda done, total: self.progress(first + (end - first) * done // max(total, 1), last)

    def _keep_base(self, names: Iterable[str]) -> None:
        """Read the pristine values of parameters that are about to be edited for the first time."""
        self.base |= read_tensors(self.model, [name for name in names if name not in self.base])


def turn_seed(seed: int, first: int, end: int) -> int:
    """The seed of the turn that applies the edits `first` to `end` (63 bits of a SHA-256)."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{first}:{end}".encode()).digest()[:8], "big") >> 1


def check_counts(edit_counts: Sequence[int], num_requests: int | None = None) -> None:
    """Check a schedule's edit counts.

    Raises:
        ValueError: They do not increase from 1 or more, or exceed the number of requests.
    """
    if not edit_counts or edit_counts[0] < 1 or any(later <= earlier for earlier, later in pairwise(edit_counts)):
        raise ValueError(f"edit_counts: {list(edit_counts)} must increase, and the first must be 1 or more")
    if num_requests is not None and edit_counts[-1] > num_requests:
        raise ValueError(
            f"edit_counts: {edit_counts[-1]} edits are asked for, but the data holds {num_requests} requests"
        )
