"""vLLM in a process of its own, model family by model family: fused, biased, transposed and permuted weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.engine_families import FAMILIES
from tests.support.warm_process import WarmProcess

CHECK = "from tests.support.engine_families import main; main()"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_vllm_takes_the_weights_of_a_family(family: str, warm_vllm: WarmProcess, tmp_path: Path) -> None:
    done = warm_vllm.run(CHECK, family, str(tmp_path), log=tmp_path / "log.txt")
    assert done.wait(timeout=300) == 0, done.said()[-4000:]
    assert done.said().splitlines()[-1] == f"{family} agrees"
