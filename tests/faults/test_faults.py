"""A sample of the campaign of faults, in two processes; `make faults` makes the whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.warm_process import WarmProcess

SEED = os.environ.get("OVEREDIT_FAULTS_SEED", "0")
CAMPAIGN = "import sys; from tests.faults.campaign import main; sys.exit(main())"


@pytest.mark.slow
@pytest.mark.long
def test_six_faults_lose_and_double_nothing(warm_process: WarmProcess, tmp_path: Path) -> None:
    campaigns = [
        warm_process.run(
            CAMPAIGN, "--faults", "6", "--seed", SEED, "--part", f"{part}/2", log=tmp_path / f"log-{part}.txt"
        )
        for part in (1, 2)
    ]
    codes = [campaign.wait() for campaign in campaigns]
    said = [campaign.said() for campaign in campaigns]
    assert codes == [0, 0], "\n".join(said)
    assert sum(text.count("/6 ") for text in said) == 6, "\n".join(said)
