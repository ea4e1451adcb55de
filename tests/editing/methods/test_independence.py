"""The model at an edit count does not depend on which other counts are measured, with every method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from overedit.editing.methods.base import MethodConfig
from overedit.editing.methods.registry import METHODS
from overedit.editing.model.weights import checksum
from overedit.editing.trajectory.runner import run_trajectory
from overedit.editing.trajectory.settings import Schedule, Source, TrajectorySettings
from overedit.tasks.search.bracket import Verdict
from overedit.tasks.search.options import SearchOptions
from tests.support.quick_methods import config_of, covariance_of
from tests.support.searches import searched
from tests.support.teachable_models import byte_tokenizer, some_requests, teachable

TURN_SIZE, COUNTS = 3, (5, 6)
"""Five edits are inside the second turn, six at its end."""
SOURCE = Source(key_at=lambda edit_count: f"k{edit_count}", model="tiny", model_digest="d")
CONFIGS = {name: config_of(name) for name in METHODS} | {
    "locft_bf, continue": config_of("locft_bf").model_copy(update={"schedule": "continue"}),
    "peft, depth first": config_of("peft").model_copy(update={"schedule": "depth_first"}),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_checkpoint_has_the_same_bits_from_a_list_of_counts_and_from_a_search(
    config: MethodConfig, tmp_path: Path
) -> None:
    model, found = teachable("llama"), []
    inputs = covariance_of(config.method, model)
    before = {name: checksum(parameter) for name, parameter in model.named_parameters()}

    def edited(name: str, counts: tuple[int, ...], **more: Any) -> Path:
        settings = TrajectorySettings(Schedule(counts, TURN_SIZE, 7), SOURCE, tmp_path / name, **more)
        entry, requests = METHODS[config.method], some_requests(7)
        list(run_trajectory(model, byte_tokenizer(), requests, config, method=entry, settings=settings, inputs=inputs))
        return tmp_path / name

    def measured(count: int) -> Verdict:
        asked.append(count)
        edited("search", tuple(sorted(asked)), continues=True)
        return Verdict("bad", "bad") if count >= 6 else Verdict("good", "good")

    for count in COUNTS:
        edited(f"only {count}", (count,))
    edited("list", (1, 2, *COUNTS, 7))
    asked: list[int] = []
    options = SearchOptions.model_validate({"search": "collapse", "growth": 7.0, "stop": 7, "precision": 0.1})
    searched(options, measured)
    assert set(COUNTS) <= {*asked} and asked[1] == 7, "it passed by them, and came back"
    for count in COUNTS:
        folders = [tmp_path / name / f"{count:08d}" for name in (f"only {count}", "list", "search")]
        found = [sorted((path.name, path.read_bytes()) for path in folder.glob("*.safetensors")) for folder in folders]
        assert found[0] and found[1] == found[0] and found[2] == found[0]
    assert {name: checksum(parameter) for name, parameter in model.named_parameters()} == before
