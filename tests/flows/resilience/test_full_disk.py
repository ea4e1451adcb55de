"""A real disk that becomes full at one place after another: one clear error, nothing half-written, nothing lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from overedit.editing.storage.disk_space import NoSpaceError
from overedit.flows.config.models import BenchmarkConfig
from tests.faults.comparison import differences, made
from tests.faults.small_run import configuration, write_inputs
from tests.support.small_disk import small_disk


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with small_disk(tmp_path / "home", monkeypatch, megabytes=4) as folder:
        yield folder


@pytest.mark.slow
def test_a_run_on_a_full_disk_ends_in_a_clear_error_and_goes_on_when_there_is_room(
    home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from overedit.flows.benchmark import benchmark

    write_inputs(tmp_path / "inputs")
    methods = [{"method": "ultraedit", "sites": ["1.down_proj"], "learning_rate": 1e-3}]
    config: BenchmarkConfig = configuration(home, tmp_path / "inputs", tiny_model, methods=methods, capability={})
    benchmark.fn(config)
    whole = made(home)
    subprocess.run(["find", home, "-mindepth", "1", "-delete"], check=True)
    errors = []
    for kilobytes in (30, 60, 100, 160, 300):  # checkpoints, then rows, then the report
        ballast = home / "of-somebody-else"
        ballast.write_bytes(b"")
        used = sum(path.stat().st_blocks * 512 for path in home.rglob("*"))
        ballast.write_bytes(bytes((4 << 20) - used - (kilobytes << 10)))
        try:
            benchmark.fn(config)
        except NoSpaceError as error:
            errors.append(str(error))
        assert made(home).temporary == ()
        ballast.unlink()
    benchmark.fn(config)
    assert differences(made(home), whole) == []
    assert len(errors) >= 3
    assert "the checkpoints at 1, 6 edits will take" in errors[0]
    assert any(
        "could not be written: No space left on device; what was written before is whole" in error for error in errors
    )
