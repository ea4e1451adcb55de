"""The gradients' covariance and its whitening, against two passes and by hand."""

from __future__ import annotations

import torch

from overedit.editing.methods.gradients.answer_gradients import ModuleGradients
from overedit.editing.methods.gradients.whitening import EIGENVALUE_FLOOR, GradientMoments, gradient_moments

WIDTH = 5
"""Outputs."""


def sample(rows: int, *, scale: float = 1.0) -> ModuleGradients:
    """Keys, and gradients that depend on each other and have a mean."""
    draw = torch.Generator().manual_seed(rows)
    mixed = torch.randn(rows, WIDTH, generator=draw) @ torch.randn(WIDTH, WIDTH, generator=draw)
    return ModuleGradients(torch.randn(rows, 3, generator=draw), (mixed + 4) * scale)


def moments_of(rows: ModuleGradients) -> GradientMoments:
    return gradient_moments({"module": rows}, {})[f"3x{WIDTH}"]


def test_whitened_gradients_have_identity_covariance() -> None:
    rows = sample(20_000)
    moments = moments_of(rows)
    whitening = moments.whitening()
    assert whitening is not None and whitening.num_clamped == 0
    whitened_RO = (rows.gradients - moments.features.mean_F[3:]) @ whitening.matrix_OO
    identity = torch.eye(WIDTH).double()
    torch.testing.assert_close(whitened_RO.T.cov(), identity, rtol=0, atol=1e-3)
    exact = whitened_RO.T @ whitened_RO / (20_000 - WIDTH - 1)
    torch.testing.assert_close(exact, identity, rtol=0, atol=1e-10)


def test_the_scatter_of_parts_is_that_of_the_whole() -> None:
    rows, moments = sample(300), GradientMoments.load({}, "3x5", sample(1))
    for keys, gradients in zip(rows.keys.split([1, 2, 200, 97]), rows.gradients.split([1, 2, 200, 97]), strict=True):
        moments = moments.merge(ModuleGradients(keys, gradients))
    deviations_RO = rows.gradients.double() - rows.gradients.double().mean(0)
    torch.testing.assert_close(moments.scatter_OO, deviations_RO.T @ deviations_RO, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moments.scatter_OO.diagonal(), moments.features.m2_F[3:], rtol=1e-12, atol=1e-12)


def test_whitening_begins_beyond_one_row_more_than_outputs() -> None:
    assert moments_of(sample(WIDTH + 1)).whitening() is None
    assert moments_of(sample(WIDTH + 2)).whitening() is not None


def test_small_eigenvalues_are_raised_to_the_floor() -> None:
    whitening = moments_of(sample(100, scale=1e-6)).whitening()
    assert whitening is not None and whitening.num_clamped == WIDTH
    expected = torch.eye(WIDTH).double() * EIGENVALUE_FLOOR**-0.5
    torch.testing.assert_close(whitening.matrix_OO, expected, rtol=1e-12, atol=1e-9)


def test_numbers_that_are_not_finite_give_nan() -> None:
    rows = sample(20)
    rows.gradients[3, 1] = torch.inf
    whitening = moments_of(rows).whitening()
    assert whitening is not None and bool(whitening.matrix_OO.isnan().all())


def test_stored_moments_are_the_same_again() -> None:
    moments = moments_of(sample(9))
    state = moments.stored("3x5")
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()} == {
        "3x5.count": (torch.int64, ()),
        "3x5.mean": (torch.float64, (8,)),
        "3x5.m2": (torch.float64, (8,)),
        "3x5.scatter": (torch.float64, (WIDTH, WIDTH)),
    }
    kept = {name: tensor.clone() for name, tensor in state.items()}
    loaded = GradientMoments.load(state, "3x5", sample(1))
    assert all(torch.equal(loaded.stored("3x5")[name], tensor) for name, tensor in state.items())
    loaded.merge(sample(2))
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())
