"""The model of a trajectory: on its main line, on a branch of it, and read back from the disk.

A state of the main line is written to `line/` every ten minutes, when a stop is requested, and before a branch; a
trajectory that was stopped continues from the newest one. They are removed when the trajectory is complete.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import Method, MethodConfig, Progress, State
from overedit.editing.model.anatomy import Anatomy
from overedit.editing.model.memory import peak_bytes, reset_peak
from overedit.editing.model.weights import apply_update, read_tensors, write_tensors
from overedit.editing.requests import EditRequest
from overedit.editing.restraints import restrain_trajectory
from overedit.editing.storage.disk_space import check_space
from overedit.editing.trajectory.checkpoint import (
    Checkpoint,
    checkpoint_folder,
    num_bytes,
    whole_checkpoints,
    write_checkpoint,
)
from overedit.editing.trajectory.interruption import StoppedError
from overedit.editing.trajectory.records import Costs, Norms, TensorRecord
from overedit.editing.trajectory.settings import TrajectorySettings, turn_seed

LINE = "line"
"""The folder of the main line's states, below a trajectory's own."""


@dataclass
class _Segment:
    """The turns between two scheduled counts."""

    log: list[dict[str, Any]]
    turn_seconds: list[float]
    started: float
    """Start by the performance counter, less the time spent before an interruption."""
    peak_bytes: int = 0
    """Peak memory before an interruption."""
    logged: int = 0
    """The main line's turns up to this edit count belong to the checkpoints before."""
    interim: Path | None = None
    """A state of the main line that is no longer needed once there is a newer one."""


@dataclass
class Editor:
    """The model being edited: between calls it has the weights of the main line at `edit_count` edits."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    requests: Sequence[EditRequest]
    config: MethodConfig
    method: Method
    settings: TrajectorySettings
    progress: Progress
    done: Mapping[int, Checkpoint]
    """The whole checkpoints by edit count; the caller adds each new one."""
    edit_count: int = 0
    turns: int = 0
    """Calls of the method that led here."""
    state: State = field(default_factory=dict)
    """The method's state."""
    state_bytes: int = 0
    """Bytes of the newest state, on a branch too."""
    edited: set[str] = field(default_factory=set)
    """The parameters that have been edited on the way here."""
    base: dict[str, torch.Tensor] = field(default_factory=dict)
    """The pristine values of every parameter that was ever edited."""

    def check_space(self, counts: Sequence[int]) -> None:
        """Check that the disk has room for checkpoints at these counts and for the main line's states.

        The size of the state is known after the first turn; a method may edit fewer tensors than its sites hold.
        """
        known = next(iter(self.done.values()), None)
        if self.base or known is None:
            edited = {name: self.model.get_parameter(name) for name in self.base or self._site_parameters()}
            size = num_bytes(edited) + self.state_bytes
        else:
            size = sum(map(_num_bytes, (*known.record.tensors.values(), *known.record.state.values())))
        num_states = self.settings.schedule.states(counts, self.done, restarts=self.config.restarts)
        what = f"the checkpoints at {', '.join(map(str, counts))} edits"
        check_space(self.settings.folder, size * num_states, what)

    def _site_parameters(self) -> list[str]:
        anatomy = Anatomy.of(self.model)
        return [name for site in self.config.sites for name in anatomy.site_parameters(site)]

    def checkpoint_at(self, count: int) -> Checkpoint:
        """Edit to `count` edits and write the checkpoint; behind a turn that leaves weights not finite, at its end.

        Raises:
            StoppedError: A stop was requested; what is done so far has been written.
        """
        line_end = self._line_end(count)
        segment = self._begin(count, line_end)
        finite = self._follow_line(count, line_end, segment)
        if not finite or (self.edit_count == count and not self._is_restrained):
            checkpoint = self._write(checkpoint_folder(self.settings.folder, self.edit_count), segment)
        else:
            with self._branch():
                if self.edit_count < count:
                    self._turn(count, segment)
                self._restrain(segment)
                checkpoint = self._write(
                    checkpoint_folder(self.settings.folder, count), segment, branched_from=line_end
                )
        self._remove(segment.interim)
        if self.settings.policy.stop_asked():
            raise StoppedError(f"stopped after {checkpoint.record.edit_count} edits, as asked")
        return checkpoint

    @property
    def _is_restrained(self) -> bool:
        """Whether the model at a count is a restrained copy of the main line's."""
        return self.config.restraint is not None and self.config.restraint.of == "trajectory"

    def _restrain(self, segment: _Segment) -> None:
        """Leave of the whole change what the restraint of the trajectory leaves, if there is one."""
        finite = all(bool(self.model.get_parameter(name).isfinite().all()) for name in self.edited)
        base = {name: self.base[name] for name in self.edited}
        log = restrain_trajectory(self.model, self.config.restraint, base) if finite else None
        if log is not None and segment.log:
            segment.log = [*segment.log[:-1], segment.log[-1] | log]

    def _line_end(self, count: int) -> int:
        """The end of the main line's last turn within a count; 0 where every count starts from the pristine model."""
        return self.settings.schedule.line_end(count, restarts=self.config.restarts)

    def _begin(self, count: int, line_end: int) -> _Segment:
        """Take the newest state of the main line that is not past `line_end`, in memory or on the disk."""
        reset_peak()
        logged = self._line_end(self.settings.schedule.before(count))
        segment = _Segment([], [], time.perf_counter(), logged=logged)
        saved = self._newest_state(line_end)
        if saved is None:
            return segment
        self._restore(saved)
        if saved.record.edit_count not in map(self._line_end, self.settings.schedule.edit_counts):
            segment.interim = saved.folder
        if saved.record.edit_count > logged:
            segment.log = [turn for turn in saved.record.log if turn["last"] > logged]
            segment.turn_seconds = list(saved.costs.turn_seconds[-len(segment.log) :])
            segment.started -= saved.costs.seconds
            segment.peak_bytes = saved.costs.peak_memory_bytes
        return segment

    def _newest_state(self, line_end: int) -> Checkpoint | None:
        """The newest whole state of the main line on the disk, if it is newer than the one in memory."""
        wanted = range(self.edit_count + 1, line_end + 1)
        on_line = [each for each in self.done.values() if each.record.branched_from is None]
        states = whole_checkpoints(self.settings.folder / LINE, self.settings.source.key_at, among=wanted)
        found = [each for each in (*on_line, *islice(states, 1)) if each.record.edit_count in wanted]
        return max(found, key=lambda each: each.record.edit_count, default=None)

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Take weights, state and counters from a checkpoint."""
        tensors, state = checkpoint.tensors(), checkpoint.state()
        self._keep_base(tensors)
        write_tensors(self.model, self.base | tensors)
        self.state, self.edited = state, set(tensors)
        self.edit_count, self.turns = checkpoint.record.edit_count, checkpoint.record.turns

    def _follow_line(self, count: int, line_end: int, segment: _Segment) -> bool:
        """Apply the turns of the main line up to `line_end`; False if one left weights that are not finite."""
        policy, written = self.settings.policy, time.perf_counter()
        while self.edit_count < line_end:
            self._turn(self.edit_count + self.settings.schedule.turn_size, segment)
            if not segment.log[-1]["finite"]:
                return False
            if self.edit_count <= segment.logged:  # a lost checkpoint is made again, from before the one before it
                segment.log.clear()
                segment.turn_seconds.clear()
                segment.started = time.perf_counter()
            if self.edit_count == count and not self._is_restrained:
                return True
            stop_asked, branches = policy.stop_asked(), self.edit_count == line_end
            if stop_asked or branches or time.perf_counter() - written >= policy.seconds:
                state = self._write(checkpoint_folder(self.settings.folder / LINE, self.edit_count), segment)
                self._remove(segment.interim)
                segment.interim = None if branches else state.folder
                written = time.perf_counter()
            if stop_asked:
                raise StoppedError(f"stopped after {self.edit_count} edits, as asked")
        return True

    @contextmanager
    def _branch(self) -> Iterator[None]:
        """Come back to the main line's weights, state and counters at the end of the block."""
        before = self.edit_count, self.turns, self.state, set(self.edited)
        tensors = read_tensors(self.model, self.edited)
        try:
            yield
        finally:
            write_tensors(self.model, self.base | tensors)
            self.edit_count, self.turns, self.state, self.edited = before

    def _turn(self, end: int, segment: _Segment) -> None:
        """Call the method once, apply its update, and log the turn."""
        started = time.perf_counter()
        first = 0 if self.config.cumulative else self.edit_count
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
        self.edited |= set(result.update)
        self.state_bytes = num_bytes(result.state)
        parameters = dict(self.model.named_parameters())
        finite = all(bool(parameters[name].isfinite().all()) for name in result.update)
        segment.log.append({"first": first + 1, "last": end, "finite": finite, **result.log})
        segment.turn_seconds.append(round(time.perf_counter() - started, 6))

    def _write(self, folder: Path, segment: _Segment, *, branched_from: int | None = None) -> Checkpoint:
        seconds = time.perf_counter() - segment.started
        tensors = read_tensors(self.model, self.edited)
        source = self.settings.source
        record = {
            "key": source.key_at(self.edit_count),
            "model": source.model,
            "model_digest": source.model_digest,
            "edit_count": self.edit_count,
            "branched_from": branched_from,
            "schedule": self._schedule_name(),
            "method": self.config.model_dump(mode="json"),
            "seed": self.settings.schedule.seed,
            "turns": self.turns,
            "finite": all(bool(tensor.isfinite().all()) for tensor in tensors.values()),
            "log": segment.log,
            "norms": {name: Norms.of(tensor, self.base[name]) for name, tensor in sorted(tensors.items())},
        }
        costs = Costs(
            seconds=seconds,
            num_edits=sum(turn["last"] - turn["first"] + 1 for turn in segment.log),
            peak_memory_bytes=max(segment.peak_bytes, peak_bytes()),
            turn_seconds=tuple(segment.turn_seconds),
            ended_at=datetime.now(UTC),
        )
        written = write_checkpoint(folder, tensors=tensors, state=self.state, record=record, costs=costs)
        self.settings.changed(folder)
        return written

    def _remove(self, folder: Path | None) -> None:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
            self.settings.changed(folder)

    def _schedule_name(self) -> str:
        if not self.config.cumulative:
            return "turns"
        return "restart" if self.config.restarts else "continue"

    def _inner_progress(self, end: int) -> Progress:
        """Progress of one turn: converts the method's steps to edits of the trajectory."""
        first, last = self.edit_count, self.settings.schedule.edit_counts[-1]
        return lambda done, total: self.progress(first + (end - first) * done // max(total, 1), last)

    def _keep_base(self, names: Iterable[str]) -> None:
        """Copy the pristine values of parameters that are edited for the first time."""
        self.base |= read_tensors(self.model, [name for name in names if name not in self.base])


def _num_bytes(record: TensorRecord) -> int:
    """Bytes of a stored tensor's values."""
    dtype: torch.dtype = getattr(torch, record.dtype)
    return math.prod(record.shape) * dtype.itemsize
