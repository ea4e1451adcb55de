"""How much memory a stretch of work took at its peak: of the GPU where there is one, else of the process."""

from __future__ import annotations

import resource
import sys

import torch


def reset_peak() -> None:
    """Begin to measure anew; a process's own peak cannot be begun anew."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> int:
    """Bytes of device memory since `reset_peak`, or of resident memory since the process began."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
