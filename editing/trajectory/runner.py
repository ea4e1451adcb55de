"""Editing a model turn by turn, with a checkpoint at each scheduled edit count.

Turns end at the scheduled counts and after `turn_size` edits, so the schedule alone decides where they end. The seed of
a turn is derived from the trajectory's seed and the turn's first and last edit, so a trajectory that resumes from its
newest whole checkpoint ends with the same bits as one that was never stopped. Between two counts an interim checkpoint
is written every ten minutes and when a stop is requested; it is removed when the next count is reached.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import Method, MethodConfig, Progress, State, silent
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
    checkpoint_folder,
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
    """The edit counts of the checkpoints, and the edits per call of the method."""

    edit_counts: tuple[int, ...]
    """Increasing, above 0: a checkpoint is written at each."""
    turn_size: int
    """The most edits per turn; cumulative methods take all edits so far in one turn."""
    seed: int = 0


class Source(NamedTuple):
    """What a trajectory is made from; recorded in its checkpoints."""

    key: str
    model: str
    model_digest: str


class TrajectorySettings(NamedTuple):
    """Where a trajectory stops, what it is made from, and where and when it is written."""

    schedule: Schedule
    source: Source
    folder: Path
    """Holds the checkpoints, one folder per edit count."""
    policy: CheckpointPolicy = EVERY_TEN_MINUTES
    """When to write an interim checkpoint between two counts."""


def run_trajectory(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: MethodConfig,
    *,
    method: Method,
    settings: TrajectorySettings,
    inputs: Mapping[str, Any] = MappingProxyType({}),
    progress: Progress = silent,
) -> Iterator[Checkpoint]:
    """Edit a model to the last scheduled count and yield the checkpoint at each; existing checkpoints are reused.

    The model changes while this runs and has its own weights again at the end.

    Args:
        model: The pristine model.
        tokenizer: Its tokenizer.
        requests: At least as many as the last edit count, in the order of editing.
        config: The method's configuration.
        method: The method's row in the registry.
        settings: Schedule, source, folder and checkpoint policy.
        inputs: Further arguments of the method in every turn, by name, computed from the pristine model.
        progress: Called with (edits done, total edits).

    Raises:
        ValueError: The schedule is not increasing or asks for more edits than there are.
        StoppedError: A stop was requested; the same call resumes after the last turn.
        NoSpaceError: The disk has no room for the remaining checkpoints; the existing ones are whole.
    """
    counts, folder = settings.schedule.edit_counts, settings.folder
    check_counts(counts, len(requests))
    remove_leftovers(folder)
    done = {checkpoint.record.edit_count: checkpoint for checkpoint in whole_checkpoints(folder, settings.source.key)}
    bound = method._replace(function=partial(method.function, **inputs))
    editor = _Editor(model, tokenizer, requests, config, bound, settings, progress)
    try:
        for stop in counts:
            if stop in done:
                editor.restore(done[stop])
            else:
                editor.check_space([count for count in counts if count not in done])
                done[stop] = editor.edit_to(stop)
            checkpoint = done[stop]
            progress(checkpoint.record.edit_count, counts[-1])
            yield checkpoint
            if not checkpoint.record.finite:
                return
    finally:
        write_tensors(model, editor.base)


class _Segment(NamedTuple):
    """The turns from one scheduled count to the next, from their start or resumed from an interim checkpoint."""

    first: int
    """Edits before it."""
    log: list[dict[str, Any]]
    turn_seconds: list[float]
    started: float
    """Start by the performance counter, less the time spent before an interruption."""
    peak_bytes: int
    """Peak memory before an interruption."""


@dataclass
class _Editor:
    """The model being edited."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    requests: Sequence[EditRequest]
    config: MethodConfig
    method: Method
    settings: TrajectorySettings
    progress: Progress
    edit_count: int = 0
    turns: int = 0
    state: State = field(default_factory=dict)
    """The method's state."""
    base: dict[str, torch.Tensor] = field(default_factory=dict)
    """The pristine values of the edited parameters."""

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take weights, state and counters from a checkpoint."""
        tensors, state = checkpoint.tensors(), checkpoint.state()
        self._keep_base(tensors)
        write_tensors(self.model, self.base | tensors)
        self.state = state
        self.edit_count, self.turns = checkpoint.record.edit_count, checkpoint.record.turns

    def check_space(self, counts: Sequence[int]) -> None:
        """Check that the disk has room for the remaining checkpoints and an interim one.

        The size of the state is known after the first turn; a method may edit fewer tensors than its sites hold.
        """
        edited = {name: self.model.get_parameter(name) for name in self.base or self._site_parameters()}
        size = num_bytes(edited) + num_bytes(self.state)
        what = f"the checkpoints at {', '.join(map(str, counts))} edits"
        check_space(self.settings.folder, size * (len(counts) + 1), what)

    def _site_parameters(self) -> list[str]:
        anatomy = Anatomy.of(self.model)
        return [name for site in self.config.sites for name in anatomy.site_parameters(site)]

    def edit_to(self, stop: int) -> Checkpoint:
        """Apply turns until `stop` edits are in, or a weight is no longer finite, and write the checkpoint.

        Raises:
            StoppedError: A stop was requested; what is done so far has been written.
        """
        segment, policy, interim = self._begin(stop), self.settings.policy, self.settings.folder / INTERIM
        written = time.perf_counter()
        while True:
            started = time.perf_counter()
            segment.log.append(self._turn(stop))
            segment.turn_seconds.append(round(time.perf_counter() - started, 6))
            stop_asked = policy.stop_asked()
            if self.edit_count == stop or not segment.log[-1]["finite"]:
                checkpoint = self._write(checkpoint_folder(self.settings.folder, self.edit_count), segment)
                shutil.rmtree(interim, ignore_errors=True)
            elif stop_asked or time.perf_counter() - written >= policy.seconds:
                checkpoint = None
                self._write(interim, segment)
                written = time.perf_counter()
            else:
                continue
            if stop_asked:
                raise StoppedError(f"stopped after {self.edit_count} edits, as asked")
            if checkpoint is not None:
                return checkpoint

    def _begin(self, stop: int) -> _Segment:
        """Start a segment, from an interim checkpoint of it where there is one."""
        reset_peak()
        first, interim_folder = self.edit_count, self.settings.folder / INTERIM
        fresh = _Segment(first, [], [], time.perf_counter(), 0)
        if not interim_folder.is_dir():
            return fresh
        try:
            interim = read_checkpoint(interim_folder)
            if interim.record.key != self.settings.source.key or not first < interim.record.edit_count < stop:
                return fresh
            self.restore(interim)
        except DamagedCheckpointError as error:
            logger.warning("passed over a damaged interim checkpoint: %s", error)
            return fresh
        log, costs = list(interim.record.log), interim.costs
        started = time.perf_counter() - costs.seconds
        return _Segment(first, log, list(costs.turn_seconds), started, costs.peak_memory_bytes)

    def _write(self, folder: Path, segment: _Segment) -> Checkpoint:
        seconds = time.perf_counter() - segment.started
        tensors = read_tensors(self.model, list(self.base))
        record = self.settings.source._asdict() | {
            "edit_count": self.edit_count,
            "method": self.config.model_dump(mode="json"),
            "seed": self.settings.schedule.seed,
            "turns": self.turns,
            "finite": all(bool(tensor.isfinite().all()) for tensor in tensors.values()),
            "log": segment.log,
            "norms": {name: Norms.of(tensor, self.base[name]) for name, tensor in tensors.items()},
        }
        costs = Costs(
            seconds=seconds,
            num_edits=self.edit_count - segment.first,
            peak_memory_bytes=max(segment.peak_bytes, peak_bytes()),
            turn_seconds=tuple(segment.turn_seconds),
        )
        return write_checkpoint(folder, tensors=tensors, state=self.state, record=record, costs=costs)

    def _turn(self, stop: int) -> dict[str, Any]:
        """Call the method once, apply its update, and return the turn's log."""
        end = stop if self.config.cumulative else min(stop, self.edit_count + self.settings.schedule.turn_size)
        first = 0 if self.config.cumulative else self.edit_count
        if self.config.restarts:
            write_tensors(self.model, self.base)
        result = self.method.function(
            self.model,
            self.tokenizer,
            self.requests[first:end],
            self.config,
            self.state,
            seed=turn_seed(self.settings.schedule.seed, first, end),
            progress=self._inner_progress(end),
        )
        self._keep_base(result.update)
        apply_update(self.model, result.update)
        self.state, self.edit_count, self.turns = result.state, end, self.turns + 1
        parameters = dict(self.model.named_parameters())
        finite = all(bool(parameters[name].isfinite().all()) for name in result.update)
        return {"first": first + 1, "last": end, "finite": finite, **result.log}

    def _inner_progress(self, end: int) -> Progress:
        """Progress of one turn: converts the method's steps to edits of the trajectory."""
        first, last = self.edit_count, self.settings.schedule.edit_counts[-1]
        return lambda done, total: self.progress(first + (end - first) * done // max(total, 1), last)

    def _keep_base(self, names: Iterable[str]) -> None:
        """Copy the pristine values of parameters that are edited for the first time."""
        self.base |= read_tensors(self.model, [name for name in names if name not in self.base])


def turn_seed(seed: int, first: int, end: int) -> int:
    """The seed of the turn that applies the edits after `first` up to `end`: 63 bits of a SHA-256."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{first}:{end}".encode()).digest()[:8], "big") >> 1


def check_counts(edit_counts: Sequence[int], num_requests: int | None = None) -> None:
    """Check a schedule's edit counts.

    Raises:
        ValueError: They do not increase, start below 1, or exceed the number of requests.
    """
    if not edit_counts or edit_counts[0] < 1 or any(later <= earlier for earlier, later in pairwise(edit_counts)):
        raise ValueError(f"edit_counts: {list(edit_counts)} must increase, and the first must be 1 or more")
    if num_requests is not None and edit_counts[-1] > num_requests:
        raise ValueError(
            f"edit_counts: {edit_counts[-1]} edits are asked for, but the data holds {num_requests} requests"
        )
