"""The machine on which a run will be: its memory, disk and speed."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import torch

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_PRODUCTS, _REPEATS, _SLOW = ((16, 2048), (1024, 1024)), 2, 5e9
"""Rows and size of the matrix products that are timed; below this rate the large one is not tried."""


class Machine(NamedTuple):
    """Bytes that a run may use."""

    host: float
    disk: float
    """Free where the results will be."""
    gpu: float = 0
    """Of one GPU; 0 without one."""


def this_machine(folder: Path) -> Machine:
    """The machine's memory (or what its control group allows), free disk at a folder, and the first GPU's memory."""
    host = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _CGROUP_LIMITS:
        text = path.read_text().strip() if path.is_file() else ""
        host = min(host, float(text)) if text.isdecimal() else host
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    gpu = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
    return Machine(host, float(shutil.disk_usage(there).free), float(gpu))


class MatmulRates(NamedTuple):
    """Operations per second of large matrix products."""

    forward: float
    """X W^T, as a layer's forward pass."""
    backward: float
    """G W, as its backward pass; in bfloat16 some processors take a thousand times as long for it."""

    @property
    def training(self) -> float:
        """Of as many operations forward as back."""
        return 2 / (1 / self.forward + 1 / self.backward)


def matmul_rates(dtype: torch.dtype) -> MatmulRates:
    """Time products with a square matrix on the device in use, with torch's present number of threads: a moment."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = []
    for is_forward in (True, False):
        rate = 0.0
        for rows, size in _PRODUCTS:
            weight = torch.ones(size, size, dtype=dtype, device=device)
            rate = max(rate, _rate(weight[:rows].contiguous(), weight.T if is_forward else weight))
            if rate < _SLOW:  # a larger one would take minutes
                break
        found.append(rate)
    return MatmulRates(*found)


def _rate(one: torch.Tensor, other: torch.Tensor) -> float:
    best = float("inf")
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        (one @ other)[0, 0].item()  # waits for a GPU
        best = min(best, time.perf_counter() - begun)
    return 2.0 * one.numel() * other.shape[1] / best
