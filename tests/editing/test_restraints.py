"""Restraints: their properties, their idle settings, and where they act."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from overedit.editing.methods.base import MethodConfig
from overedit.editing.methods.registry import METHODS
from overedit.editing.model.weights import apply_update, checksum, read_tensors
from overedit.editing.restraints import (
    AnyRestraint,
    Dare,
    Prune,
    Rect,
    Restraint,
    Sphere,
    Truncate,
    restrain_trajectory,
)
from overedit.editing.trajectory.runner import run_trajectory
from overedit.editing.trajectory.settings import Schedule, Source, TrajectorySettings
from tests.support.quick_methods import covariance_of, quick_settings
from tests.support.teachable_models import byte_tokenizer, some_requests
from tests.support.tiny_models import tiny

IDLE = (Rect(keep=1), Sphere(strength=0), Prune(), Truncate(rank=10_000), Dare(drop=0))
ACTIVE = (Rect(keep=0.3), Sphere(), Prune(), Truncate(rank=2), Dare(drop=0.5))
FAMILIES = ("llama", "gpt2")


def example(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(12, 20, generator=generator), torch.randn(12, 20, generator=generator)


def left_of(restraint: Restraint, delta: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return restraint.restrained(delta, weight, name="w", in_out=False)


def test_rect_keeps_the_largest_relative_changes_and_their_count() -> None:
    delta, weight = example()
    left = left_of(Rect(keep=0.25), delta, weight)
    kept = left != 0
    assert int(kept.sum()) == 60
    assert torch.equal(left[kept], delta[kept])
    relative = (delta / weight).abs()
    assert relative[kept].min() > relative[~kept].max()


def test_sphere_scales_what_lies_in_the_principal_directions_and_leaves_the_rest() -> None:
    delta, weight = (tensor.double() for tensor in example())
    left = left_of(Sphere(strength=0.3), delta, weight)
    rows = torch.nn.functional.normalize(weight, dim=1)
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    rank = int((values.flip(0).cumsum(0) / values.sum() <= 0.5).sum()) + 1
    principal, rest = vectors[:, -rank:], vectors[:, :-rank]
    torch.testing.assert_close(left @ principal, 0.7 * delta @ principal)
    torch.testing.assert_close(left @ rest, delta @ rest)


@pytest.mark.parametrize("restraint", [Prune(), Prune(base=1.2), Prune(excess="half")])
def test_prune_keeps_the_order_of_the_spectrum_and_is_continuous_at_the_weights_largest(restraint: Prune) -> None:
    delta, weight = (tensor.double() for tensor in example())
    most = torch.linalg.matrix_norm(weight, ord=2)
    left_OS, _, right_SI = torch.linalg.svd(delta, full_matrices=False)
    values = torch.linspace(2.0, 0.1, 12, dtype=torch.float64) * most
    values[5] = most * (1 + 1e-9)
    pruned = torch.linalg.svdvals(left_of(restraint, (left_OS * values) @ right_SI, weight))
    assert bool((pruned.diff() <= 1e-12).all())
    assert pruned[0] < values[0]
    torch.testing.assert_close(pruned[values <= most], values[values <= most])
    assert abs(float(pruned[5] - most)) < 1e-7


def test_dare_keeps_the_mean_over_seeds() -> None:
    delta, weight = example()
    mean = torch.stack([left_of(Dare(drop=0.5, seed=seed), delta, weight) for seed in range(1000)]).mean(0)
    assert float((mean - delta).norm() / delta.norm()) < 0.05
    assert torch.equal(left_of(Dare(drop=0.5, q=0.5), delta, weight), left_of(Dare(drop=0.5), delta, weight))
    assert torch.equal(left_of(Dare(drop=0.5, q=1), delta, weight) * 2, left_of(Dare(drop=0.5), delta, weight))


def test_truncate_is_the_nearest_of_its_rank() -> None:
    delta, weight = (tensor.double() for tensor in example())
    left = left_of(Truncate(rank=3), delta, weight)
    assert int(torch.linalg.matrix_rank(left)) == 3
    assert float((delta - left).norm()) == pytest.approx(float(torch.linalg.svdvals(delta)[3:].norm()))


def run(name: str, family: str, restraint: Restraint | None, **more: Any) -> Any:
    model = tiny(family)
    config = METHODS[name].config(**quick_settings(METHODS[name].config), restraint=restraint)
    return METHODS[name].function(
        model, byte_tokenizer(), some_requests(6), config, {}, seed=3, **covariance_of(name, model), **more
    )


def digests(result: Any, family: str) -> dict[str, str]:
    model = tiny(family)
    apply_update(model, result.update)
    return {name: checksum(tensor) for name, tensor in read_tensors(model, result.update).items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_an_idle_restraint_leaves_the_bits_of_every_method(name: str, family: str) -> None:
    plain = run(name, family, None)
    for restraint in IDLE[:2]:
        idle = run(name, family, restraint)
        assert digests(idle, family) == digests(plain, family)
        assert idle.log == plain.log | {"restraint/norm_kept": 1.0, "restraint/entries_dropped": 0}
        assert {key: checksum(value) for key, value in idle.state.items()} == {
            key: checksum(value) for key, value in plain.state.items()
        }


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["ft_m", "memit", "locft_bf"])
def test_a_turn_is_restrained_in_either_layout(name: str, family: str) -> None:
    plain, model = run(name, family, None), tiny(family)
    restrained = run(name, family, Rect(keep=0.3))
    assert restrained.log["restraint/entries_dropped"] > 0
    assert 0 < restrained.log["restraint/norm_kept"] < 1
    edited = tiny(family)
    apply_update(edited, plain.update)
    for parameter, change in restrained.update.items():
        before = model.get_parameter(parameter).detach()
        whole = edited.get_parameter(parameter).detach() - before
        assert int((change.tensor != 0).sum()) <= round(0.3 * before.numel())
        kept = change.tensor != 0
        torch.testing.assert_close(change.tensor[kept], whole[kept], rtol=1e-3, atol=1e-6)


def trajectory(folder: Path, restraint: Restraint | None, counts: tuple[int, ...], name: str = "ft_m") -> list[Any]:
    config: MethodConfig = METHODS[name].config(**quick_settings(METHODS[name].config), restraint=restraint)
    settings = TrajectorySettings(Schedule(counts, 2), Source(str, "tiny", "0"), folder)
    model = tiny("llama")
    before = {key: checksum(tensor) for key, tensor in model.state_dict().items()}
    found = list(
        run_trajectory(model, byte_tokenizer(), some_requests(6), config, method=METHODS[name], settings=settings)
    )
    assert {key: checksum(tensor) for key, tensor in model.state_dict().items()} == before
    return found


def sums(checkpoint: Any) -> dict[str, str]:
    return {name: tensor.sha256 for name, tensor in checkpoint.record.tensors.items()}


@pytest.mark.parametrize("name", ["ft_m", "locft_bf"])
def test_a_restraint_of_the_trajectory_acts_on_a_copy(tmp_path: Path, name: str) -> None:
    """The model at each count is the plain one with its whole change restrained, whatever was counted before."""
    plain = trajectory(tmp_path / "plain", None, (2, 3, 6), name)
    restrained = trajectory(tmp_path / "restrained", Truncate(rank=1), (2, 3, 6), name)
    base = tiny("llama")
    for one, other in zip(plain, restrained, strict=True):
        edited = tiny("llama")
        for parameter, tensor in one.tensors().items():
            edited.get_parameter(parameter).data.copy_(tensor)
        log = restrain_trajectory(edited, Truncate(rank=1), read_tensors(base, one.tensors()))
        assert sums(other) == {parameter: checksum(edited.get_parameter(parameter)) for parameter in one.tensors()}
        assert log is not None and 0 < log["restraint/norm_kept"] < 1
        assert other.record.log[-1]["restraint/norm_kept"] == log["restraint/norm_kept"]
        assert other.record.branched_from is not None
    alone = trajectory(tmp_path / "alone", Truncate(rank=1), (6,), name)
    assert sums(alone[0]) == sums(restrained[2])


@pytest.mark.parametrize("restraint", IDLE[2:])
def test_an_idle_restraint_of_the_trajectory_leaves_its_bits(tmp_path: Path, restraint: Restraint) -> None:
    plain, idle = trajectory(tmp_path / "plain", None, (3, 4)), trajectory(tmp_path / "idle", restraint, (3, 4))
    assert [sums(checkpoint) for checkpoint in idle] == [sums(checkpoint) for checkpoint in plain]


def test_a_restrained_trajectory_that_was_stopped_has_the_same_bits(tmp_path: Path) -> None:
    whole = trajectory(tmp_path / "whole", Dare(drop=0.5), (2, 4, 6))
    trajectory(tmp_path / "parts", Dare(drop=0.5), (2, 4))
    parts = trajectory(tmp_path / "parts", Dare(drop=0.5), (2, 4, 6))
    assert [sums(checkpoint) for checkpoint in parts] == [sums(checkpoint) for checkpoint in whole]


def test_a_configuration_names_a_restraint_by_its_kind_or_with_settings() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(AnyRestraint)
    assert adapter.validate_python("rect") == Rect()
    assert adapter.validate_python({"kind": "sphere", "strength": 1}) == Sphere(strength=1)
    for restraint in ACTIVE:
        assert adapter.validate_json(restraint.model_dump_json()) == restraint
    with pytest.raises(ValidationError, match="'rect', 'sphere', 'prune', 'truncate', 'dare'"):
        adapter.validate_python("nothing")
    with pytest.raises(ValidationError, match="rank"):
        adapter.validate_python("truncate")
