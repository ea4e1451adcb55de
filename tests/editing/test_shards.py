"""Shards: what is merged, with every method; what is stored; and where one shard is no shard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from overedit.editing.merging.rules import DareTies, Mean, Merge, Pcb, Sum, Ties
from overedit.editing.methods.base import EditResult, MethodConfig, TurnSize
from overedit.editing.methods.ft_m import FtM
from overedit.editing.methods.locft_bf import LocftBf
from overedit.editing.methods.registry import METHODS
from overedit.editing.model.shape import ModelShape
from overedit.editing.model.weights import applied, apply_update, checksum, read_tensors, write_tensors
from overedit.editing.restraints import Rect, Truncate
from overedit.editing.shards import Shards, sharded_turns
from overedit.editing.trajectory.runner import run_trajectory
from overedit.editing.trajectory.settings import Schedule, Source, TrajectorySettings
from tests.support.quick_methods import config_of, covariance_of
from tests.support.teachable_models import byte_tokenizer, some_requests
from tests.support.tiny_models import tiny

REQUESTS = some_requests(6)


def call(model: Any, config: MethodConfig, requests: Any, state: Any, **more: Any) -> EditResult:
    more = {"seed": 3} | covariance_of(config.method, tiny("llama")) | more
    return METHODS[config.method].function(model, byte_tokenizer(), requests, config, state, **more)


def sharded(name: str, count: int, merge: Merge, **more: Any) -> MethodConfig:
    return config_of(name).model_copy(update={"shards": Shards(count=count, merge=merge), **more})


def edited(model: Any, names: Any) -> dict[str, torch.Tensor]:
    return {name: model.get_parameter(name).detach().clone() for name in names}


def by_hand(name: str, parts: list[list[Any]], merge: Merge) -> dict[str, torch.Tensor]:
    """Shards that are edited one after the other, each from the pristine model; `parts` by shard and turn."""
    base, found = tiny("llama"), []
    for turns in parts:
        model, state = tiny("llama"), {}
        for turn in turns:
            result = call(model, config_of(name), turn, state)
            apply_update(model, result.update)
            state = result.state
        found.append(edited(model, result.update))
    return {
        parameter: base.get_parameter(parameter).detach()
        + merge.merged([each[parameter] - base.get_parameter(parameter).detach() for each in found], name=parameter)
        for parameter in found[0]
    }


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.router is None])
def test_two_turns_of_every_method_are_those_of_its_shards_merged(name: str) -> None:
    """Each shard goes on with its own weights and state, and the model is bit-identical after each call."""
    config, model, state = sharded(name, 2, Ties(keep=0.5)), tiny("llama"), {}
    turns = [REQUESTS] if config.cumulative else [REQUESTS[:3], REQUESTS[3:]]
    for turn in turns:
        before = {key: checksum(tensor) for key, tensor in model.state_dict().items()}
        steps: list[tuple[int, int]] = []
        result = call(model, config, turn, state, progress=lambda done, total: steps.append((done, total)))  # noqa: B023
        assert {key: checksum(tensor) for key, tensor in model.state_dict().items()} == before
        assert steps[-1][0] == steps[-1][1]
        apply_update(model, result.update)
        state = result.state
    parts = [REQUESTS[::2], REQUESTS[1::2]]
    expected = by_hand(
        name,
        [[part] if config.cumulative else [part[: 2 - index], part[2 - index :]] for index, part in enumerate(parts)],
        Ties(keep=0.5),
    )
    for parameter, tensor in expected.items():
        assert torch.equal(model.get_parameter(parameter), tensor)
    assert result.log["merge/shards"] == 2
    assert 0 < result.log["merge/norm_kept"] < 1
    assert all(tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in state.values())


@pytest.mark.parametrize("name", ["ft_m", "memit", "locft_bf"])
def test_one_shard_is_the_method_itself(name: str) -> None:
    plain, one = (call(tiny("llama"), c, REQUESTS, {}) for c in (config_of(name), sharded(name, 1, Pcb())))
    assert one.log == plain.log
    assert {key: checksum(value) for key, value in one.state.items()} == {
        key: checksum(value) for key, value in plain.state.items()
    }
    with applied(first := tiny("llama"), plain.update), applied(second := tiny("llama"), one.update):
        assert {key: checksum(value) for key, value in first.state_dict().items()} == {
            key: checksum(value) for key, value in second.state_dict().items()
        }


def test_shards_without_an_edit_take_no_part() -> None:
    """One edit of four shards is the edit of the plain method, whatever the rule; the mean of two is of two."""
    for merge in (Mean(), Pcb(), DareTies()):
        plain, first = (
            call(tiny("llama"), config, REQUESTS[:1], {}) for config in (config_of("ft_m"), sharded("ft_m", 4, merge))
        )
        with applied(one := tiny("llama"), plain.update), applied(other := tiny("llama"), first.update):
            for name in plain.update:
                assert torch.equal(one.get_parameter(name), other.get_parameter(name))
        assert first.log["merge/shards"] == 1
    model = tiny("llama")
    first = call(model, sharded("ft_m", 4, Mean()), REQUESTS[:1], {})
    apply_update(model, first.update)
    second = call(model, sharded("ft_m", 4, Mean()), REQUESTS[1:2], first.state)
    for name, value in by_hand("ft_m", [[REQUESTS[:1]], [REQUESTS[1:2]]], Mean()).items():
        assert torch.equal(second.update[name].tensor, value)


def test_a_later_turn_does_not_depend_on_the_weights_that_the_model_has() -> None:
    config, model = sharded("ft_m", 2, Sum()), tiny("llama")
    state = call(model, config, REQUESTS[:3], {}).state
    result = call(model, config, REQUESTS[3:], state)
    write_tensors(model, {name: torch.zeros_like(model.get_parameter(name)) for name in result.update})
    again = call(model, config, REQUESTS[3:], state)
    for name, change in result.update.items():
        assert torch.equal(change.tensor, again.update[name].tensor)


def trajectory(folder: Path, config: MethodConfig, counts: tuple[int, ...]) -> list[dict[str, str]]:
    settings = TrajectorySettings(Schedule(counts, 2), Source(str, "tiny", "0"), folder)
    model, method = tiny("llama"), METHODS[config.method]
    before = {key: checksum(tensor) for key, tensor in model.state_dict().items()}
    run = run_trajectory(model, byte_tokenizer(), REQUESTS, config, method=method, settings=settings)
    found = [{name: tensor.sha256 for name, tensor in checkpoint.record.tensors.items()} for checkpoint in run]
    assert {key: checksum(tensor) for key, tensor in model.state_dict().items()} == before
    return found


@pytest.mark.parametrize("schedule", ["restart", "continue"])
def test_a_cumulative_method_deals_all_edits_in_each_turn(tmp_path: Path, schedule: str) -> None:
    config = sharded("locft_bf", 2, Sum(), schedule=schedule)
    several = trajectory(tmp_path / "several", config, (1, 3, 4, 6))
    assert trajectory(tmp_path / "alone", config, (6,)) == several[-1:]
    trajectory(tmp_path / "parts", config, (1, 3))
    assert trajectory(tmp_path / "parts", config, (1, 3, 4, 6)) == several
    assert len({str(each) for each in several}) == 4


def test_restraints_act_on_each_shards_turn_or_on_the_merged_change(tmp_path: Path) -> None:
    config = sharded("ft_m", 2, Sum(), restraint=Rect(keep=0.3))
    result = call(tiny("llama"), config, REQUESTS, {})
    assert result.log["shard0/restraint/entries_dropped"] > 0
    config = sharded("ft_m", 2, Sum(), restraint=Truncate(rank=1))
    several = trajectory(tmp_path / "several", config, (2, 3, 6))
    assert trajectory(tmp_path / "alone", config, (6,)) == several[-1:]


def test_half_precision_models_are_merged_in_float32_and_rounded_once() -> None:
    model, config = tiny("llama", dtype=torch.bfloat16), sharded("ft_m", 2, Sum())
    result = call(model, config, REQUESTS, {})
    for name, change in result.update.items():
        base = model.get_parameter(name).float()
        shards = [result.state[f"shard{shard}/weights/{name}"] for shard in range(2)]
        assert all(tensor.dtype == change.tensor.dtype == torch.bfloat16 for tensor in shards)
        expected = base + ((shards[0].float() - base) + (shards[1].float() - base))
        assert torch.equal(change.tensor, expected.to(torch.bfloat16))


@pytest.mark.parametrize("name", ["ft_m", "ultraedit", "alphaedit"])
def test_the_state_has_the_bytes_that_are_announced(name: str) -> None:
    model, config = tiny("llama"), sharded(name, 3, Sum())
    result = call(model, config, REQUESTS, {})
    stored = sum(t.nbytes for key, t in result.state.items() if not key.endswith("context_templates"))
    shape, turn = ModelShape.of(model, itemsize=4), TurnSize(6, 20, 4)
    work = config.work_of_shards(shape, turn)
    assert stored == pytest.approx(work.state_bytes, abs=48)
    assert set(read_tensors(model, result.update)) == {
        key.removeprefix("shards/pristine/") for key in result.state if key.startswith("shards/pristine/")
    }
    plain = config_of(name)
    assert plain.work_of_shards(shape, turn) == plain.work(shape, turn)
    assert work.operations >= 3 * plain.work(shape, TurnSize(2, 20, 4)).operations
    assert work.num_bytes > plain.work(shape, TurnSize(2, 20, 4)).num_bytes


def test_a_method_that_restarts_stores_nothing() -> None:
    config = sharded("locft_bf", 3, Sum())
    assert isinstance(config, LocftBf)
    assert call(tiny("llama"), config, REQUESTS, {}).state == {}
    assert config.work_of_shards(ModelShape.of(tiny("llama"), itemsize=4), TurnSize(6, 20, 4)).state_bytes == 0


def test_edits_beside_the_weights_cannot_be_merged() -> None:
    function = sharded_turns(lambda *_, **__: EditResult({}, {}, {}))
    with pytest.raises(ValueError, match=r"shards.count: 2 was given, but ft_m keeps its edits beside the weights"):
        function(tiny("llama"), None, REQUESTS, sharded("ft_m", 2, Sum()), {})


def test_a_configuration_has_shards_with_a_count_and_a_rule() -> None:
    given = {"method": "ft_m", "site": "1.down_proj", "shards": {"count": 4, "merge": "pcb"}}
    config = FtM.model_validate(given)
    assert config.shards == Shards(count=4, merge=Pcb())
    assert str(config.shards) == "4 x pcb"
    assert str(Shards(count=2, merge=Pcb(keep=0.05, scale=1.2))) == "2 x pcb(scale=1.2, keep=0.05)"
    assert FtM.model_validate_json(config.model_dump_json()) == config
    for wrong, words in (
        ({"count": 0, "merge": "sum"}, "shards.count\n.*greater than or equal to 1"),
        ({"count": 2}, "shards.merge\n.*Field required"),
        ({"count": 2, "merge": "slerp"}, "shards.merge\n.*'slerp'.*'sum', 'mean', 'ties'"),
        ({"count": 2, "merge": {"kind": "pcb", "keep": 2}}, "shards.merge.pcb.keep\n.*less than or equal to 1"),
    ):
        with pytest.raises(ValidationError, match=words):
            FtM.model_validate(given | {"shards": wrong})
