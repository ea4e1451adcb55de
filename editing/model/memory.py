"""Device memory: its peak, and splitting a batch in two when memory runs out (`OomHalver`).

Splitting is for work whose parts add up to the same numbers: independent sequences, gradients that are summed. Parts of
another size are padded and summed in another order, so the last bits of float32 can differ, as with any other batch
size.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import resource
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")


class OomHalver:
    """Runs batches, halves one that exceeds the memory, and keeps later ones within the size that was found to fit."""

    def __init__(self) -> None:
        self.most: int | None = None
        """The largest size tried from now on; None until memory has run out once."""

    def run(
        self,
        groups: Iterable[Sequence[Item]],
        compute: Callable[[Sequence[Item]], Result],
        *,
        size: Callable[[Sequence[Item]], int],
    ) -> Iterator[tuple[Sequence[Item], Result]]:
        """Compute groups one after another, each whole or in consecutive parts.

        Args:
            groups: The batches of items; none is empty.
            compute: Must have no effect when it fails: it is called again for each half.
            size: The number that the memory of some items grows with, e.g. their tokens.

        Yields:
            A group, or a part of one, and its result.

        Raises:
            RuntimeError: A single item exceeds the memory, or `compute` failed for another reason.
        """
        for group in groups:
            waiting = [group]
            while waiting:
                part = waiting.pop()
                if len(part) > 1 and self.most is not None and size(part) > self.most:
                    middle = (len(part) + 1) // 2
                    waiting += [part[middle:], part[:middle]]
                    continue
                try:
                    result = compute(part)
                except (RuntimeError, MemoryError) as error:
                    if len(part) == 1 or not says_out_of_memory(error):
                        raise
                    self.most = max(1, size(part) // 2)
                    waiting.append(part)
                else:
                    yield part, result
                    continue
                # here the error is released, with the tensors that its traceback held
                logger.warning(
                    "%d at once exceed the memory: from now on at most %d tokens together", len(part), self.most
                )
                _free()


def says_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; on a CPU torch has no error class of its own for it."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or any(words in str(error) for words in _OUT_OF_MEMORY)


def _free() -> None:
    """Release the memory of the failed attempt; on a GPU blocks of the wrong size would stay reserved."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


_PROCESS = Path("/proc/self")


def reset_peak() -> None:
    """Reset the peak; without a GPU this needs Linux's /proc and has no effect elsewhere."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")  # resets VmHWM to the resident size (proc(5))


def peak_bytes() -> int:
    """Peak bytes of device memory, or of resident memory, since `reset_peak` (without /proc since process start)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError):
        lines = (_PROCESS / "status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
