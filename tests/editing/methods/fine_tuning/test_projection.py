"""Free directions of a projection's weight, and Adam within them."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from overedit.editing.methods.fine_tuning.projection import FreeDirections, ProjectedSteps

INPUTS, OUTPUTS = 7, 5


def spread(size: int, seed: int) -> torch.Tensor:
    """A symmetric matrix with eigenvalues from 0.01 to 10, float64."""
    random = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    basis = torch.linalg.qr(random).Q
    return basis @ torch.logspace(-2, 1, size, dtype=torch.float64).diag() @ basis.T


A_II, B_OO = spread(INPUTS, 1), spread(OUTPUTS, 2)
CHANGE_OI = torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(3))


def free(energy: float, *, in_out: bool = False) -> FreeDirections:
    return FreeDirections.of(A_II, B_OO, energy, in_out=in_out)


@pytest.mark.parametrize("energy", [0.3, 0.8, 0.95])
def test_projecting_twice_is_projecting_once(energy: float) -> None:
    directions = free(energy)
    once = directions.project(CHANGE_OI)
    assert 0.05 < float(once.norm() / CHANGE_OI.norm()) < 0.999
    torch.testing.assert_close(directions.project(once), once, rtol=1e-5, atol=1e-6)
    frozen = CHANGE_OI - once
    assert float((frozen * once).sum().abs()) < 1e-5, "the frozen part is orthogonal to it"


@pytest.mark.parametrize("energy", [0.0, 0.3, 0.8, 0.95])
def test_a_quadratic_loss_changes_by_the_curvature_that_is_left_free(energy: float) -> None:
    """Of a loss with the second derivative B (x) A, along a change that has 1 in every direction."""
    directions = free(energy)
    change_OI = directions.project(directions.combined(torch.ones(OUTPUTS, INPUTS))).double()
    loss = float((B_OO @ change_OI @ A_II * change_OI).sum()) / 2
    whole = float(A_II.trace() * B_OO.trace()) / 2
    curved_OI = torch.outer(torch.linalg.eigvalsh(B_OO), torch.linalg.eigvalsh(A_II))
    left = float(curved_OI[directions.free_OI].sum()) / 2
    assert loss == pytest.approx(left, rel=1e-5)
    assert left <= (1 - energy) * whole * (1 + 1e-12)
    frozen = curved_OI[~directions.free_OI]
    assert len(frozen) == directions.num_frozen
    if energy:
        assert left + float(frozen.min()) / 2 > (1 - energy) * whole, "with one frozen direction less, it is too much"


def test_the_ends_of_the_energy() -> None:
    assert free(0.0).num_frozen == 0
    assert free(0.0).project(CHANGE_OI) is CHANGE_OI
    whole = free(1.0)
    assert whole.num_frozen == INPUTS * OUTPUTS
    assert not whole.project(CHANGE_OI).any()
    flat = FreeDirections.of(torch.zeros(3, 3).double(), torch.zeros(2, 2).double(), 0.9, in_out=False)
    assert flat.num_frozen == 0, "nothing is curved"
    rank_one = FreeDirections.of(torch.ones(3, 3).double(), torch.eye(2).double(), 1.0, in_out=False)
    assert rank_one.num_frozen == 2, "directions without curvature stay free"


def test_directions_of_equal_curvature_are_frozen_together() -> None:
    equal = FreeDirections.of(torch.eye(3).double(), torch.eye(2).double(), 0.1, in_out=False)
    assert equal.num_frozen == 6


def test_a_weight_that_is_stored_the_other_way_round() -> None:
    there, here = free(0.8, in_out=True), free(0.8)
    projected = there.project(CHANGE_OI.T.contiguous())
    assert projected.is_contiguous()
    torch.testing.assert_close(projected.T, here.project(CHANGE_OI))
    assert not torch.allclose(projected.T, CHANGE_OI, atol=1e-2)


def trained(projected: Literal["gradient", "step"], energy: float) -> tuple[ProjectedSteps, torch.Tensor]:
    """Five steps of Adam on |W - 1|^2, and the change of W."""
    value = torch.zeros(OUTPUTS, INPUTS, requires_grad=True)
    optimizer = torch.optim.Adam([value], 0.05)
    steps = ProjectedSteps(optimizer, {"s": value}, {"s": free(energy)}, projected=projected, state={})
    for _ in range(5):
        optimizer.zero_grad()
        (value - CHANGE_OI).square().sum().backward()
        optimizer.step()
    return steps, value.detach()


def outside(change_OI: torch.Tensor, directions: FreeDirections) -> float:
    coordinates_OI = directions.coordinates(change_OI)
    return float(coordinates_OI.masked_fill(directions.free_OI, 0).norm() / coordinates_OI.norm())


def test_adam_leaks_out_of_the_free_directions_unless_its_steps_are_projected() -> None:
    directions = free(0.95)
    by_gradient, by_step = trained("gradient", 0.95), trained("step", 0.95)
    assert outside(by_gradient[1], directions) > 0.1
    assert outside(by_step[1], directions) < 1e-5
    logs = [steps.log() for steps, _ in (by_gradient, by_step)]
    assert logs[0]["s/leak"] == pytest.approx(outside(by_gradient[1], directions), abs=0.1)
    assert logs[1]["s/leak"] > 0.1, "the leak of Adam's own steps, before their projection"
    assert logs[0]["s/frozen"] == directions.num_frozen / (INPUTS * OUTPUTS)


@pytest.mark.parametrize("projected", ["gradient", "step"])
def test_with_everything_frozen_nothing_moves(projected: Literal["gradient", "step"]) -> None:
    assert not trained(projected, 1.0)[1].any()
    assert trained(projected, 0.0)[0].log() == {"s/frozen": 0.0, "s/leak": 0.0}


@pytest.mark.parametrize("projected", ["gradient", "step"])
def test_moments_are_carried_on(projected: Literal["gradient", "step"]) -> None:
    """Two turns of one step are one turn of two, while what is free stays the same."""

    def step(value: torch.Tensor, optimizer: torch.optim.Adam) -> None:
        optimizer.zero_grad()
        (value - CHANGE_OI).square().sum().backward()
        optimizer.step()

    def begun(
        start: torch.Tensor, state: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.optim.Adam, ProjectedSteps]:
        value = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([value], 0.05, fused=True)
        return (
            value,
            optimizer,
            ProjectedSteps(optimizer, {"s": value}, {"s": free(0.8)}, projected=projected, state=state),
        )

    value, optimizer, steps = begun(torch.zeros(OUTPUTS, INPUTS), {})
    assert not any(moment.any() for moment in steps.moments().values()), "before the first step"
    step(value, optimizer)
    after_one, state = value.detach().clone(), steps.moments()
    step(value, optimizer)
    again, optimizer, resumed = begun(after_one, state)
    before = {name: tensor.clone() for name, tensor in state.items()}
    step(again, optimizer)
    torch.testing.assert_close(again, value, rtol=1e-5, atol=1e-6)
    assert int(resumed.moments()["steps"]) == 2
    assert all(torch.equal(state[name], before[name]) for name in before), "the caller's state is not changed"
    started_anew, optimizer, _ = begun(after_one, {})
    step(started_anew, optimizer)
    assert not torch.allclose(started_anew, value, atol=1e-4)


def test_the_first_moment_is_projected_on_what_is_free_now() -> None:
    steps, _ = trained("gradient", 0.3)
    state = steps.moments()
    for projected in ("gradient", "step"):
        value = torch.zeros(OUTPUTS, INPUTS, requires_grad=True)
        later = ProjectedSteps(
            torch.optim.Adam([value]), {"s": value}, {"s": free(0.95)}, projected=projected, state=state
        )
        share = outside(later.moments()["s.first_moment"], free(0.95))
        assert (share < 1e-5) == (projected == "gradient")
        assert torch.equal(later.moments()["s.second_moment"], state["s.second_moment"])
