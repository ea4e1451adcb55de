"""A sample of the campaign of faults, in two processes; `make faults` makes the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SEED = os.environ.get("OVEREDIT_FAULTS_SEED", "0")


@pytest.mark.slow
def test_twenty_faults_lose_and_double_nothing(repository: Path) -> None:
    campaigns = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults.campaign", "--faults", "20", "--seed", SEED, "--part", f"{part}/2"],
            cwd=repository,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for part in (1, 2)
    ]
    said = [campaign.communicate()[0] for campaign in campaigns]
    assert [campaign.returncode for campaign in campaigns] == [0, 0], "\n".join(said)
    assert sum(text.count("/20 ") for text in said) == 20, "\n".join(said)
