"""A finished benchmark run, for all tests that compare with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from overedit.flows.config.models import BenchmarkConfig
from tests.support.benchmark_run import FinishedRun, configuration


@pytest.fixture(scope="session")
def finished(prefect_server: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run on the Prefect server, which nobody may change."""
    from prefect.artifacts import Artifact

    from overedit.flows.benchmark import benchmark

    folder = tmp_path_factory.mktemp("run")
    kinds = ("leaderboard", "report", "progress", "collapse-curve", "retention", "perplexity-capability")
    keys = {kind: f"{kind}-r" for kind in kinds}
    before = {kind: Artifact.get(key) for kind, key in keys.items()}  # of other tests' runs on the same server
    config = BenchmarkConfig.model_validate(configuration(folder, tiny_model))
    assert Path(benchmark(config)) == folder / "reports" / "r.html"
    made = {kind: Artifact.get(key) for kind, key in keys.items()}
    return FinishedRun(folder, config, {kind: None if made[kind] == before[kind] else made[kind] for kind in kinds})
