"""Whatever a checkpoint's folder holds, it is a whole checkpoint, or refused as damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from overedit.editing.storage.checksums import unsealed
from overedit.editing.trajectory.checkpoint import read_checkpoint
from tests.fuzz import strategies
from tests.support.checkpoints import write_made_up
from tests.support.fuzzing import Outcome

NAMES = ("checkpoint.json", "costs.json", "weights.safetensors", "state.safetensors")


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    tensor = torch.arange(6.0).reshape(2, 3)
    return write_made_up(tmp_path / "1", tensor, 1, state={"s": tensor}).folder


@given(data=st.data(), name=st.sampled_from(NAMES))
def test_any_damage(whole: Path, outcome: Outcome, data: st.DataObject, name: str) -> None:
    path = whole / name
    before = path.read_bytes()
    content = data.draw(st.one_of(strategies.damaged(st.just(before)), strategies.datasets))
    path.write_bytes(content)
    expected = torch.arange(6.0).reshape(2, 3)

    def read() -> bool:
        checkpoint = read_checkpoint(whole)
        tensors, state = checkpoint.tensors(), checkpoint.state()
        return torch.equal(tensors["w"], expected) and (not state or torch.equal(state["s"], expected))

    try:
        assert outcome(read, str(whole)) in (None, True), "what is read is what was written"
    finally:
        path.write_bytes(before)


@given(
    field=st.sampled_from(["edit_count", "norms", "tensors", "log", "method", "key", "more"]), value=strategies.values
)
def test_any_record(whole: Path, outcome: Outcome, field: str, value: Any) -> None:
    path = whole / "checkpoint.json"
    before = path.read_bytes()
    plain = json.loads(unsealed(before))  # its checksum would hide what is read behind it
    path.write_bytes(strategies.as_json(plain | {field: value}))
    try:
        outcome(lambda: read_checkpoint(whole).tensors(), str(whole))
    finally:
        path.write_bytes(before)
