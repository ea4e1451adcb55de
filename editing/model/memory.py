"""OomHalver: what exceeds the memory is run in two parts, and everything that follows in parts no larger.

Only for work whose parts add up to the same numbers: sequences that do not see each other, gradients that are summed.
Parts of another size are padded and summed in another order, so the last bits of float32 can differ, as they do where
another size is asked for to begin with.
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
    """How much may run at once: anything, until something proves too much; what is found out is kept for later runs."""

    def __init__(self) -> None:
        self.most: int | None = None
        """The largest size tried from now on; None as long as nothing was too much."""

    def run(
        self,
        groups: Iterable[Sequence[Item]],
        compute: Callable[[Sequence[Item]], Result],
        *,
        size: Callable[[Sequence[Item]], int],
    ) -> Iterator[tuple[Sequence[Item], Result]]:
        """Compute groups one after the other, each whole or in consecutive parts.

        Args:
            groups: What is to be computed; none is empty.
            compute: Leaves nothing behind when it fails: it is called again for each half.
            size: What the memory taken by some items grows with, e.g. their tokens.

        Yields:
            A group, or a part of one, and what was computed from it.

        Raises:
            RuntimeError: A single item exceeds the memory; or another failure of `compute`.
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
                # the error is gone here, and with it all that its traceback kept
                logger.warning(
                    "%d at once exceed the memory: from now on at most %d tokens together", len(part), self.most
                )
                _free()


def says_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out; on a processor torch has no kind of its own for it."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or any(words in str(error) for words in _OUT_OF_MEMORY)


def _free() -> None:
    """Give back what the failed attempt has left: on a GPU pieces of the wrong size stay reserved otherwise."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


_PROCESS = Path("/proc/self")


def reset_peak() -> None:
    """Begin to measure anew; without Linux's /proc a process's own peak cannot be begun anew."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")  # VmHWM is what is resident now (proc(5))


def peak_bytes() -> int:
    """Bytes of device memory since `reset_peak`, or of resident memory, since the process began where it has to be."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError):
        lines = (_PROCESS / "status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
