"""What editing takes along a trajectory: the calls of the method, their operations, the memory, and the disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from overedit.editing.methods.base import MethodConfig, TurnSize
from overedit.editing.model.shape import ModelShape
from overedit.editing.trajectory.settings import Schedule

_HEADER_BYTES = 8 + 32
"""Of a safetensors file: the length of its header, and its metadata."""
_TENSOR_HEADER_BYTES = 96
"""Of each tensor in that header: its name, dtype, shape and offsets."""
_RECORD_BYTES, _TENSOR_RECORD_BYTES, _TURN_RECORD_BYTES = 1024, 384, 320
"""Of `checkpoint.json`: its own, and for each tensor (checksum, norms) and each turn (log)."""


class Tokens(NamedTuple):
    """Means over a sample of the requests."""

    prompt: float
    target: float

    def of(self, num_edits: int) -> TurnSize:
        """The size of a call with so many requests."""
        return TurnSize(num_edits, self.prompt, self.target)


class Memory(NamedTuple):
    """Bytes at the peak."""

    host: float = 0
    """Of the machine's memory, which cannot be given back (anonymous)."""
    mapped: float = 0
    """Pages of weight files: resident while there is room, and read again where there is not."""
    gpu: float = 0
    """Of a GPU's memory."""

    def __add__(self, other: object) -> Memory:
        """The sum of two processes that run at once."""
        assert isinstance(other, Memory)
        return Memory(*(one + more for one, more in zip(self, other, strict=True)))


def calls(config: MethodConfig, counts: Sequence[int], turn_size: int) -> Counter[int]:
    """The calls of a method along a trajectory: requests of a call -> number of calls.

    The main line's turns end every `turn_size` edits; a count within a turn is a branch, with a call of its own. A
    cumulative method is given all edits so far in each call; one that restarts has a call for each count.
    """
    if config.restarts:
        return Counter(counts)
    schedule = Schedule(tuple(counts), turn_size)
    ends = [schedule.line_end(count, restarts=False) for count in counts]
    branches = [(count, count - end) for count, end in zip(counts, ends, strict=True) if count > end]
    line = range(turn_size, max(ends, default=0) + 1, turn_size)
    if config.cumulative:
        return Counter(line) + Counter(count for count, _ in branches)
    return Counter({turn_size: len(line)} if line else {}) + Counter(new for _, new in branches)


def edits_made(of_calls: Mapping[int, int]) -> int:
    """The requests of all calls: what the stage `edit` of the costs counts as its items."""
    return sum(size * number for size, number in of_calls.items())


def operations(config: MethodConfig, shape: ModelShape, tokens: Tokens, of_calls: Mapping[int, int]) -> float:
    """Floating-point operations of all calls, and of what the first needs in addition."""
    each = {size: config.work_of_shards(shape, tokens.of(size)) for size in of_calls}
    setup = max((work.setup_operations for work in each.values()), default=0.0)
    return setup + sum(each[size].operations * number for size, number in of_calls.items())


def editing_memory(
    config: MethodConfig,
    shape: ModelShape,
    tokens: Tokens,
    of_calls: Mapping[int, int],
    *,
    process_bytes: float,
    is_mapped: bool,
    on_gpu: bool,
    offload: str = "none",
) -> Memory:
    """Peak of the process that edits.

    Weights + the method's own bytes + its state + copies of the edited tensors: pristine ones, and, where the weights
    are mapped from their files, the pages that are written to. While a checkpoint is written, the method's bytes are
    free, and another copy is taken; its norms hold three tensors in float64.

    Args:
        config: The method.
        shape: The model's.
        tokens: The requests'.
        of_calls: As `calls`.
        process_bytes: Of Python and its packages.
        is_mapped: Whether the weights are used in the dtype that they are stored in.
        on_gpu: Whether the model is edited on a GPU: then the copies alone are in the machine's memory.
        offload: Where the frozen weights of the layers lie: `editing.offload`.
    """
    works = [config.work_of_shards(shape, tokens.of(size)) for size in of_calls]
    edited = shape.values(config.sites) * shape.itemsize
    state = max((work.state_bytes for work in works), default=0.0)
    inside = max((work.num_bytes for work in works), default=0.0)
    writing = edited + 24 * shape.largest(config.sites)
    is_streamed = offload == "disk" or (offload == "cpu" and on_gpu)
    on_device = shape.resident_bytes(config.sites) if is_streamed else shape.num_bytes
    if on_gpu:
        elsewhere = shape.num_bytes if offload == "cpu" else 0
        return Memory(host=process_bytes + elsewhere + edited + state + writing, gpu=on_device + inside)
    copies = edited * (2 if is_mapped else 1) + state
    weights = Memory(mapped=on_device) if is_mapped else Memory(host=on_device)
    return weights + Memory(host=process_bytes + copies + max(inside, writing))


def checkpoint_bytes(config: MethodConfig, shape: ModelShape, state_bytes: float, *, num_turns: int = 1) -> float:
    """Bytes of one checkpoint's folder: the edited tensors in the model's dtype, the state, and its records."""
    names = shape.names(config.sites)
    tensors = sum(shape.sizes[name] for name in names) * shape.itemsize + _HEADER_BYTES
    records = _RECORD_BYTES + _TENSOR_RECORD_BYTES * len(names) + _TURN_RECORD_BYTES * num_turns
    return tensors + _TENSOR_HEADER_BYTES * len(names) + state_bytes + records


def checkpoints_bytes(
    config: MethodConfig, shape: ModelShape, tokens: Tokens, counts: Sequence[int], turn_size: int
) -> float:
    """Bytes of a trajectory's folder at its fullest: all checkpoints, and the states of the main line."""
    of_calls = calls(config, counts, turn_size)
    state = max((config.work_of_shards(shape, tokens.of(size)).state_bytes for size in of_calls), default=0.0)
    num_states = Schedule(tuple(counts), turn_size).states(counts, restarts=config.restarts)
    each = checkpoint_bytes(config, shape, state)
    return num_states * each + _TURN_RECORD_BYTES * of_calls.total()
