"""The peak of a stretch of work is its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from overedit.editing import memory

BLOCK = 64 << 20


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU's memory is counted")
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the kernel keeps one peak a process")
def test_a_peak_before_the_stretch_does_not_count() -> None:
    memory.reset_peak()
    before = memory.peak_bytes()
    block = bytearray(b"x") * BLOCK
    high = memory.peak_bytes()
    assert high - before > BLOCK // 2
    del block
    assert memory.peak_bytes() >= high - (1 << 20), "a peak stays"
    memory.reset_peak()
    assert memory.peak_bytes() < high - BLOCK // 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU's memory is counted")
def test_without_the_kernels_files_it_is_the_process_own_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "none")
    memory.reset_peak()
    assert memory.peak_bytes() > 1 << 20
