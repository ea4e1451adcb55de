"""How much memory a stretch of work took at its peak: of the GPU where there is one, else of the process."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

import torch

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
