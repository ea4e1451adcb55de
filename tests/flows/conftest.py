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
    keys = ("leaderboard", "report", "progress", "collapse-curve", "retention", "perplexity-capability")
    before = {key: Artifact.get(key) for key in keys}  # of other tests' runs on the same server
    config = BenchmarkConfig.model_validate(configuration(folder, tiny_model))
    assert Path(benchmark(config)) == folder / "reports" / "r.html"
    made = {key: Artifact.get(key) for key in keys}
    return FinishedRun(folder, config, {key: None if made[key] == before[key] else made[key] for key in keys})
