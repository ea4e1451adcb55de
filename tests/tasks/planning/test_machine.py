"""What the machine has, and how fast it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from overedit.tasks.planning.machine import MatmulRates, matmul_rates, this_machine


def test_the_disk_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    machine = this_machine(tmp_path / "not" / "there")
    assert machine.disk == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert machine.host > 2**28


def test_rates_are_those_of_both_passes() -> None:
    rates = matmul_rates(torch.float32)
    assert min(rates) > 1e7
    assert min(rates) <= rates.training <= max(rates)
    assert MatmulRates(3e9, 1e9).training == 1.5e9
