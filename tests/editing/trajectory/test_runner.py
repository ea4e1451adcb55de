"""The trajectory runner: turns, checkpoints and resuming, with a fast method whose sums are known."""

from __future__ import annotations

import contextlib
import json
import logging
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from overedit.editing.merging.rules import Pcb
from overedit.editing.methods.base import EditResult, Method, MethodConfig
from overedit.editing.model.weights import Delta, Replacement, checksum
from overedit.editing.requests import EditRequest
from overedit.editing.shards import Shards, sharded_turns
from overedit.editing.storage import disk_space
from overedit.editing.storage.disk_space import NoSpaceError
from overedit.editing.trajectory import editor as trajectory
from overedit.editing.trajectory.checkpoint import (
    Checkpoint,
    DamagedCheckpointError,
    read_checkpoint,
    whole_checkpoints,
)
from overedit.editing.trajectory.interruption import EVERY_TEN_MINUTES, CheckpointPolicy, StoppedError
from overedit.editing.trajectory.runner import run_trajectory
from overedit.editing.trajectory.settings import Schedule, Source, TrajectorySettings, turn_seed

Usage = namedtuple("Usage", "total used free")
NAME = "model.layers.0.mlp.down_proj.weight"
REQUESTS = [EditRequest(case_id=str(i), prompt=f"p{i}", target_new="t") for i in range(40)]
SOURCE = Source(key_at=lambda edit_count: f"k{edit_count}", model="tiny", model_digest="d")


class Config(MethodConfig):
    method: Literal["noise"] = "noise"
    schedule: str = "continue"
    poison_at: int | None = None
    poison_in: int | None = None
    """Turns of this many edits leave a NaN."""
    edited: tuple[str, ...] = ()

    @property
    def sites(self) -> tuple[str, ...]:
        return self.edited

    @property
    def restarts(self) -> bool:
        return self.schedule == "restart"


class CumulativeConfig(Config):
    cumulative: ClassVar[bool] = True


def add_noise(
    model: Any, tokenizer: Any, requests: Any, config: Config, state: Any, *, seed: int, progress: Any
) -> EditResult:
    """Adds seeded noise, counts edits in its state, and can turn a weight into NaN."""
    count = int(state.get("count", torch.zeros(1))) + len(requests)
    shape = model.get_parameter(NAME).shape
    apart = int(requests[0].case_id) if config.shards else 0  # shards have the same seed, but not the same edits
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed + apart))
    if (config.poison_at is not None and count >= config.poison_at) or len(requests) == config.poison_in:
        noise[0, 0] = float("nan")
    progress(1, 1)
    return EditResult({NAME: Delta(noise)}, {"count": torch.tensor([count])}, {"edits": len(requests)})


NOISE = Method(config=Config, function=sharded_turns(add_noise), label="Noise", paper="none", presets={})


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, vocab_size=32, use_cache=False
    )
    return LlamaForCausalLM(config).eval()


def start(
    model: Any,
    folder: Path,
    counts: tuple[int, ...],
    config: Config | None = None,
    policy: CheckpointPolicy = EVERY_TEN_MINUTES,
    *,
    continues: bool = False,
) -> Iterator[Checkpoint]:
    settings = TrajectorySettings(Schedule(counts, turn_size=4, seed=7), SOURCE, folder, policy, continues)
    return run_trajectory(model, None, REQUESTS, config or Config(), method=NOISE, settings=settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.name != "costs.json" and p.is_file()
    }


def test_the_main_line_has_turns_of_the_turn_size_and_a_count_inside_one_is_a_branch(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    checkpoints = list(start(model, tmp_path, (1, 10, 11, 12, 15)))
    spans = [[(turn["first"], turn["last"]) for turn in c.record.log] for c in checkpoints]
    assert spans == [[(1, 1)], [(1, 4), (5, 8), (9, 10)], [(9, 11)], [(9, 12)], [(13, 15)]]
    assert [c.record.branched_from for c in checkpoints] == [0, 8, 8, None, 12]
    assert [c.record.turns for c in checkpoints] == [1, 3, 3, 3, 4]
    assert [int(c.state()["count"]) for c in checkpoints] == [1, 10, 11, 12, 15]
    assert [c.costs.num_edits for c in checkpoints] == [1, 10, 3, 4, 3]
    assert [len(c.costs.turn_seconds) for c in checkpoints] == [1, 3, 1, 1, 1]
    assert {path.name for path in tmp_path.iterdir()} == {f"{count:08d}" for count in (1, 10, 11, 12, 15)}
    assert all(0 < sum(c.costs.turn_seconds) <= c.costs.seconds + 1e-4 for c in checkpoints)


def test_a_checkpoint_is_the_edited_tensor_and_the_model_is_its_own_again(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    before = {name: checksum(p) for name, p in model.named_parameters()}
    base = model.get_parameter(NAME).detach().clone()
    first, second = start(model, tmp_path, (4, 8))
    noise = [
        torch.randn(base.shape, generator=torch.Generator().manual_seed(turn_seed(7, a, b)))
        for a, b in ((0, 4), (4, 8))
    ]
    assert torch.equal(first.tensors()[NAME], base + noise[0])
    assert torch.equal(second.tensors()[NAME], base + noise[0] + noise[1])
    assert {name: checksum(p) for name, p in model.named_parameters()} == before
    assert second.record.norms[NAME].update == pytest.approx(float((noise[0] + noise[1]).norm()), rel=1e-4)


@pytest.mark.parametrize("schedule", ["continue", "restart"])
def test_a_cumulative_method_takes_all_edits_from_the_base_or_from_the_turn_before(
    model: LlamaForCausalLM, tmp_path: Path, schedule: str
) -> None:
    base = model.get_parameter(NAME).detach().clone()
    checkpoints = list(start(model, tmp_path, (6, 8), CumulativeConfig(schedule=schedule)))
    noise = {b: torch.randn(base.shape, generator=torch.Generator().manual_seed(turn_seed(7, 0, b))) for b in (4, 6, 8)}
    if schedule == "restart":
        expected, edits, left = [noise[6], noise[8]], [[6], [8]], [0, 0]
    else:
        expected, edits, left = [noise[4] + noise[6], noise[4] + noise[8]], [[4, 6], [8]], [4, None]
    assert [[turn["last"] - turn["first"] + 1 for turn in c.record.log] for c in checkpoints] == edits
    assert [c.record.branched_from for c in checkpoints] == left
    assert {c.record.schedule for c in checkpoints} == {schedule}
    for checkpoint, change in zip(checkpoints, expected, strict=True):
        torch.testing.assert_close(checkpoint.tensors()[NAME], base + change)


SHARDS = Shards(count=3, merge=Pcb(keep=0.5))
SCHEDULES = [(10,), (1, 10), (1, 4, 9, 10, 20), (8, 10, 12), (10, 11, 40), tuple(range(1, 13))]


@pytest.mark.parametrize("shards", [None, SHARDS], ids=["whole", "shards"])
@pytest.mark.parametrize("config", [Config(), CumulativeConfig(), CumulativeConfig(schedule="restart")], ids=str)
def test_the_model_at_a_count_does_not_depend_on_the_other_counts(
    model: LlamaForCausalLM, tmp_path: Path, config: Config, shards: Shards | None
) -> None:
    found = []
    config = config.model_copy(update={"shards": shards})
    for index, counts in enumerate(SCHEDULES):
        folder = tmp_path / str(index)
        (at_10,) = (c for c in start(model, folder, counts, config) if c.record.edit_count == 10)
        found.append(contents(at_10.folder))
        found[-1].pop("checkpoint.json")  # its log has the turns since the count before
        assert set(found[0]) == {"weights.safetensors"} | ({"state.safetensors"} if at_10.record.state else set())
    assert all(each == found[0] for each in found)


def test_a_schedule_that_grows_continues_from_the_states_of_the_main_line(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    """As a search asks for one count after another, also for smaller ones."""
    counts: list[int] = []
    for count in (1, 10, 30, 18, 14, 16):
        counts = sorted([*counts, count])
        before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("0*/*")}
        (new,) = (c for c in start(model, tmp_path, tuple(counts), continues=True) if c.record.edit_count == count)
        assert before.items() <= {path: path.stat().st_mtime_ns for path in tmp_path.glob("0*/*")}.items()
        assert new.record.edit_count == count
        if count == 14:
            assert [(t["first"], t["last"]) for t in new.record.log] == [(9, 12), (13, 14)], "from the state at 8"
    assert sorted(int(path.name) for path in (tmp_path / "line").iterdir()) == [8, 12, 16, 28]
    list(start(model, tmp_path / "at once", tuple(counts)))
    for count in counts:
        for name in ("weights.safetensors", "state.safetensors"):
            one, other = (folder / f"{count:08d}" / name for folder in (tmp_path, tmp_path / "at once"))
            assert one.read_bytes() == other.read_bytes()
    list(start(model, tmp_path, tuple(counts)))
    assert not (tmp_path / "line").exists()


def test_a_branch_that_is_not_finite_does_not_end_the_main_line(model: LlamaForCausalLM, tmp_path: Path) -> None:
    checkpoints = list(start(model, tmp_path, (3, 4, 7, 8), Config(poison_in=3)))
    assert [(c.record.edit_count, c.record.finite) for c in checkpoints] == [
        (3, False), (4, True), (7, False), (8, True),
    ]  # fmt: skip


@pytest.mark.parametrize("config", [Config(), Config(shards=SHARDS)], ids=["whole", "shards"])
@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_stopped_run_continues_to_the_same_bytes(
    model: LlamaForCausalLM, tmp_path: Path, stop_after: int, config: Config
) -> None:
    list(start(model, tmp_path / "whole", (1, 10, 20), config))
    run = start(model, tmp_path / "stopped", (1, 10, 20), config)
    for _ in range(stop_after):
        next(run)
    run.close()
    list(start(model, tmp_path / "stopped", (1, 10, 20), config))
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


@pytest.mark.parametrize("file", ["weights.safetensors", "state.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_a_damaged_checkpoint_is_made_again(
    model: LlamaForCausalLM, tmp_path: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    list(start(model, tmp_path, (1, 10, 20)))
    before = contents(tmp_path)
    path = tmp_path / "00000020" / file
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    else:
        path.unlink()
    with caplog.at_level(logging.WARNING):
        assert [c.record.edit_count for c in whole_checkpoints(tmp_path, SOURCE.key_at)] == (
            [20, 10, 1] if _harmless(path) else [10, 1]
        )
    list(start(model, tmp_path, (1, 10, 20)))
    assert contents(tmp_path) == before or _harmless(path)


def _harmless(path: Path) -> bool:
    """A flipped bit in the JSON's white space or a digit may leave it readable; then only the text differs."""
    try:
        checkpoint = read_checkpoint(path.parent)
        checkpoint.tensors(), checkpoint.state()
        return path.name == "checkpoint.json"
    except DamagedCheckpointError:
        return False


def test_a_weight_that_is_no_longer_finite_ends_the_trajectory_with_a_checkpoint(
    model: LlamaForCausalLM, tmp_path: Path
) -> None:
    checkpoints = list(start(model, tmp_path, (1, 10, 20), Config(poison_at=6)))
    assert [(c.record.edit_count, c.record.finite) for c in checkpoints] == [(1, True), (8, False)]
    assert torch.isfinite(model.get_parameter(NAME)).all()


def test_another_key_is_another_trajectory(model: LlamaForCausalLM, tmp_path: Path) -> None:
    list(start(model, tmp_path, (1, 10)))
    assert list(whole_checkpoints(tmp_path, lambda _: "other")) == []


@pytest.mark.parametrize(
    ("counts", "words"),
    [((), "must increase"), ((0, 1), "1 or more"), ((2, 2), "must increase"), ((1, 41), "holds 40")],
)
def test_schedules_that_do_not_fit(
    model: LlamaForCausalLM, tmp_path: Path, counts: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        list(start(model, tmp_path / "none", counts))
    assert not (tmp_path / "none").exists()


def test_the_record_is_readable_without_the_tensors(model: LlamaForCausalLM, tmp_path: Path) -> None:
    (checkpoint,) = start(model, tmp_path, (4,))
    record = json.loads((checkpoint.folder / "checkpoint.json").read_text())
    assert record["edit_count"] == 4
    assert record["tensors"][NAME]["sha256"] == checksum(checkpoint.tensors()[NAME])
    assert record["tensors"][NAME]["shape"] == [16, 24]


def test_replacement_keeps_exact_values(model: LlamaForCausalLM) -> None:
    from overedit.editing.model.weights import applied

    values = torch.randn(model.get_parameter(NAME).shape)
    before = checksum(model.get_parameter(NAME))
    with applied(model, {NAME: Replacement(values)}):
        assert torch.equal(model.get_parameter(NAME), values)
    assert checksum(model.get_parameter(NAME)) == before


def test_room_for_all_checkpoints_is_looked_for_before_the_first_turn(
    model: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tensor of 16 x 24 float32 and a state of 8 bytes: at each count, before a branch, and in between."""
    base = model.get_parameter(NAME).nbytes
    asked: list[tuple[int, str]] = []
    monkeypatch.setattr(trajectory, "check_space", lambda _, size, what: asked.append((size, what)))
    next(start(model, tmp_path, (1, 4, 10), Config(edited=("0.down_proj",))))
    assert asked == [(5 * base, "the checkpoints at 1, 4, 10 edits")]
    asked.clear()
    list(start(model, tmp_path, (1, 4, 10), Config(edited=("0.down_proj",))))
    known = base + 8
    assert asked == [(4 * known, "the checkpoints at 4, 10 edits"), (3 * known, "the checkpoints at 10 edits")]
    monkeypatch.undo()
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: Usage(0, 0, disk_space.SLACK + 5 * base - 1))
    with pytest.raises(NoSpaceError, match=r"the checkpoints at 1, 4, 10 edits will take .* is whole"):
        list(start(model, tmp_path / "full", (1, 4, 10), Config(edited=("0.down_proj",))))
    assert not (tmp_path / "full").exists()


def interrupted(
    model: Any, folder: Path, counts: tuple[int, ...], interim: CheckpointPolicy, config: Config | None = None
) -> None:
    list(start(model, folder, counts, config, interim))


@pytest.mark.parametrize("config", [Config(), Config(shards=SHARDS)], ids=["whole", "shards"])
@pytest.mark.parametrize("turns", [1, 2, 3, 5])
def test_a_stop_that_is_asked_for_keeps_what_there_is(
    model: LlamaForCausalLM, tmp_path: Path, turns: int, config: Config
) -> None:
    """Wherever it comes, the same call again ends with the same bytes, log and edits counted included."""
    list(start(model, tmp_path / "whole", (1, 10, 20), config))
    before = {name: checksum(p) for name, p in model.named_parameters()}
    looked: list[bool] = []

    def stop_asked() -> bool:
        looked.append(len(looked) + 1 == turns)
        return looked[-1]

    with contextlib.suppress(StoppedError):
        interrupted(model, tmp_path / "stopped", (1, 10, 20), CheckpointPolicy(stop_asked=stop_asked), config)
    assert {name: checksum(p) for name, p in model.named_parameters()} == before
    again = list(start(model, tmp_path / "stopped", (1, 10, 20), config))
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert [c.costs.num_edits for c in again] == [1, 10, 12]
    assert [len(c.costs.turn_seconds) for c in again] == [1, 3, 3]


def test_interim_checkpoints_come_in_time_and_go(model: LlamaForCausalLM, tmp_path: Path, monkeypatch: Any) -> None:
    written: list[str] = []
    real = trajectory.write_checkpoint
    monkeypatch.setattr(
        trajectory, "write_checkpoint", lambda folder, **k: (written.append(folder.name), real(folder, **k))[1]
    )
    interrupted(model, tmp_path, (1, 10), CheckpointPolicy(seconds=0))
    assert written == ["00000001", "00000004", "00000008", "00000010"]
    assert not (tmp_path / "line").exists()


def test_a_damaged_interim_checkpoint_is_passed_over(
    model: LlamaForCausalLM, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    list(start(model, tmp_path / "whole", (1, 10)))
    asked = iter([False, True, False, False])
    with pytest.raises(StoppedError, match="after 4 edits"):
        interrupted(model, tmp_path / "stopped", (1, 10), CheckpointPolicy(stop_asked=lambda: next(asked)))
    state = tmp_path / "stopped" / "line" / "00000004" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"\x7f")
    with caplog.at_level(logging.WARNING):
        list(start(model, tmp_path / "stopped", (1, 10)))
    assert "damaged checkpoint" in caplog.text
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
