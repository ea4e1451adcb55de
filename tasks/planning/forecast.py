"""The records of a forecast, and what of it does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from overedit.editing.storage.disk_space import SLACK
from overedit.tasks.planning.machine import Machine
from overedit.tasks.planning.trajectories import Memory


class MethodForecast(NamedTuple):
    """One trajectory: a method on one order of the requests."""

    label: str
    edits: int
    """Requests of all calls of the method; a cumulative one has the earlier ones again in each."""
    operations: float
    memory: Memory
    """Of the process that edits."""
    disk: float
    """Bytes of its checkpoints."""
    seconds: float
    source: str
    """Where the time is from."""


class StageForecast(NamedTuple):
    """One stage beside editing, over the whole run."""

    stage: str
    items: float
    seconds: float
    source: str


class Need(NamedTuple):
    """One resource."""

    what: str
    needed: float
    available: float
    key: str
    """What takes most of it: `editing`, `engine` or `disk`."""

    @property
    def fits(self) -> bool:
        """Whether there is enough."""
        return self.needed <= self.available


class Forecast(NamedTuple):
    """What a run will take, at most, with one choice of its edit counts."""

    edit_counts: tuple[int, ...]
    num_orders: int
    methods: tuple[MethodForecast, ...]
    """Of one order each."""
    stages: tuple[StageForecast, ...]
    needs: tuple[Need, ...]
    notes: tuple[str, ...]
    """What was assumed, in words."""

    @property
    def seconds(self) -> float:
        """All stages one after another."""
        return self.num_orders * sum(m.seconds for m in self.methods) + sum(s.seconds for s in self.stages)

    @property
    def fits(self) -> bool:
        """Whether there is enough of everything."""
        return all(need.fits for need in self.needs)


def needs_of(
    machine: Machine,
    editing: Sequence[Memory],
    engine: Memory,
    *,
    least_gpu: float,
    at_once: int,
    engines: int,
    other_processes: float,
    disk: float,
) -> tuple[Need, ...]:
    """Compare what a run needs with what the machine has.

    On a CPU the engine stays while the methods edit, so both count; on a GPU it is closed first. Pages of weight files
    do not count: the system takes them back where it must, and reads them again.

    Args:
        machine: What there is.
        editing: The peak of each method.
        engine: The engine's.
        least_gpu: GPU memory that the engine cannot do without.
        at_once: Trajectories that are edited at the same time.
        engines: Engines that measure at the same time.
        other_processes: Host memory of the run's other processes.
        disk: Bytes to be written.
    """
    largest = max(memory.host for memory in editing)
    host = at_once * largest + engines * engine.host + other_processes
    needs = [
        Need("host memory", host, machine.host, "editing" if at_once * largest >= engines * engine.host else "engine"),
        Need("disk", disk + SLACK, machine.disk, "disk"),
    ]
    if machine.gpu:
        on_gpu = max(memory.gpu for memory in editing)
        needs.append(
            Need("GPU memory", max(on_gpu, least_gpu), machine.gpu, "editing" if on_gpu >= least_gpu else "engine")
        )
    return tuple(needs)
