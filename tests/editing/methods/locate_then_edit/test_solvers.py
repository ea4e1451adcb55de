"""The three solutions against their objectives, in float64."""

from __future__ import annotations

import logging

import pytest
import torch

from overedit.editing.methods.locate_then_edit.solvers import (
    KeyTargets,
    Solution,
    accumulated,
    by_inverse,
    equality,
    least_squares,
    null_space,
    rank_one,
)

INPUTS, OUTPUTS = 24, 10


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def covariance(inputs: int = INPUTS) -> torch.Tensor:
    """Uncentred, of unequal directions."""
    keys = drawn(400, inputs, seed=1) * torch.linspace(0.1, 3, inputs, dtype=torch.float64) + 0.3
    return keys.T @ keys / len(keys)


def memory(num_keys: int, inputs: int = INPUTS, seed: int = 2) -> KeyTargets:
    return KeyTargets(drawn(inputs, num_keys, seed=seed), drawn(OUTPUTS, num_keys, seed=seed + 1))


def delta(solution: Solution) -> torch.Tensor:
    return solution.residual_ON @ solution.weights_NI


def cholesky(matrix: torch.Tensor) -> torch.Tensor:
    return torch.linalg.cholesky(matrix)


@pytest.mark.parametrize("num_keys", [1, 5, INPUTS - 1])
@pytest.mark.parametrize("weight", [1.0, 1000.0])
def test_equality_is_exact_and_least_disturbing(num_keys: int, weight: float) -> None:
    c0, asked = covariance(), memory(num_keys)
    found = delta(equality(asked, cholesky(c0), weight=weight))
    assert float((found @ asked.keys_IN - asked.residual_ON).abs().max()) < 1e-8
    assert torch.linalg.matrix_rank(found) <= num_keys
    other = found + drawn(OUTPUTS, INPUTS, seed=9) @ (
        torch.eye(INPUTS, dtype=torch.float64) - asked.keys_IN @ torch.linalg.pinv(asked.keys_IN)
    )  # also exact at the keys
    assert torch.trace(other @ c0 @ other.T) > torch.trace(found @ c0 @ found.T)
    stationary = found @ c0  # Lagrange: Delta C0 lies in the span of the keys
    outside = stationary - stationary @ asked.keys_IN @ torch.linalg.pinv(asked.keys_IN)
    assert float(outside.norm() / stationary.norm()) < 1e-9


def test_equality_of_one_key_is_rank_one_at_the_same_key() -> None:
    c0, asked = covariance(), memory(1)
    one = delta(rank_one(asked, cholesky(c0), at_IN=asked.keys_IN))
    torch.testing.assert_close(one, delta(equality(asked, cholesky(c0), weight=7.0)), rtol=1e-10, atol=1e-12)


def test_rank_one_holds_where_it_is_asked_and_points_along_the_other_key() -> None:
    c0, asked, at = covariance(), memory(1), drawn(INPUTS, 1, seed=8)
    found = delta(rank_one(asked, cholesky(c0), at_IN=at))
    torch.testing.assert_close(found @ at, asked.residual_ON, rtol=1e-9, atol=1e-10)
    direction = torch.linalg.solve(c0, asked.keys_IN)
    torch.testing.assert_close(
        found, found @ direction @ direction.T / (direction.T @ direction), rtol=1e-8, atol=1e-10
    )


@pytest.mark.parametrize("num_keys", [1, 5, INPUTS, INPUTS + 1, 3 * INPUTS])
@pytest.mark.parametrize("weight", [0.5, 20.0])
def test_least_squares_meets_its_normal_equations_in_both_forms(num_keys: int, weight: float) -> None:
    c0, asked = covariance(), memory(num_keys)
    solution = least_squares(asked, cholesky(c0), weight=weight)
    left = delta(solution) @ (weight * c0 + asked.keys_IN @ asked.keys_IN.T)
    right = asked.residual_ON @ asked.keys_IN.T
    assert float((left - right).norm() / right.norm()) < 1e-11
    assert solution.condition_number >= 1


def test_the_ridge_of_equality_is_the_covariance_weight_of_least_squares() -> None:
    """EMMET with a ridge and MEMIT are one family: only w times the ridge counts."""
    c0, asked = covariance(), memory(6)
    ridged = delta(equality(asked, cholesky(c0), weight=5.0, ridge=0.1))
    weighted = delta(least_squares(asked, cholesky(c0), weight=0.5))
    torch.testing.assert_close(ridged, weighted, rtol=1e-9, atol=1e-12)


def flat_covariance(null: int = 9) -> torch.Tensor:
    """With `null` directions in which there is nothing."""
    basis = torch.linalg.qr(drawn(INPUTS, INPUTS, seed=4)).Q
    variances = torch.cat([torch.zeros(null), torch.linspace(0.5, 4, INPUTS - null)]).double()
    return basis * variances @ basis.T


@pytest.mark.parametrize("num_keys", [1, 5, 9, 20])
@pytest.mark.parametrize("turn", [1, 2])
def test_null_space_leaves_what_is_preserved_and_meets_its_normal_equations(num_keys: int, turn: int) -> None:
    c0, asked, ridge = flat_covariance(), memory(num_keys), 0.3
    basis = torch.linalg.eigh(c0).eigenvectors[:, :9]
    earlier_keys = drawn(INPUTS, 4, seed=6)
    earlier = earlier_keys @ earlier_keys.T if turn == 2 else None
    found = delta(null_space(asked, basis, earlier, ridge=ridge))
    assert float((found @ c0).norm() / (found.norm() * c0.norm())) < 1e-14
    assert torch.linalg.matrix_rank(found) <= num_keys
    projector = basis @ basis.T
    gram = asked.keys_IN @ asked.keys_IN.T + (0 if earlier is None else earlier)
    published = torch.linalg.solve(
        projector @ gram + ridge * torch.eye(INPUTS, dtype=torch.float64), projector @ asked.keys_IN
    )
    torch.testing.assert_close(found, asked.residual_ON @ published.T, rtol=1e-8, atol=1e-10)


def test_equal_keys_are_solved_by_the_pseudo_inverse_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    c0, asked = covariance(), memory(4)
    asked.keys_IN[:, 3] = asked.keys_IN[:, 0]  # one subject, two values
    with caplog.at_level(logging.WARNING):
        solution = equality(asked, cholesky(c0), weight=1.0)
    assert solution.pseudo_inverse
    assert "equal" in caplog.text
    given = delta(solution) @ asked.keys_IN
    mean = (asked.residual_ON[:, 0] + asked.residual_ON[:, 3]) / 2
    torch.testing.assert_close(given[:, 0], mean, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(given[:, 1:3], asked.residual_ON[:, 1:3], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("objective", ["least squares", "null space"])
def test_more_equal_keys_than_inputs_without_a_weight_to_speak_of(
    objective: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The system of the inputs is singular then; equal keys get the mean of their values, and the log says so."""
    one = drawn(INPUTS, 1, seed=3)
    many = KeyTargets(one.expand(INPUTS, 2 * INPUTS), drawn(4, 2 * INPUTS, seed=4))
    with caplog.at_level(logging.WARNING):
        if objective == "least squares":
            solution = least_squares(many, cholesky(covariance()), weight=1e-30)
        else:
            solution = null_space(many, torch.eye(INPUTS, dtype=torch.float64), None, ridge=1e-30)
    assert solution.pseudo_inverse
    assert "singular" in caplog.text
    torch.testing.assert_close(delta(solution) @ one, many.residual_ON.mean(1, keepdim=True), rtol=1e-8, atol=1e-10)


def test_a_ridge_makes_equal_keys_ordinary() -> None:
    asked = memory(4)
    asked.keys_IN[:, 3] = asked.keys_IN[:, 0]
    solution = equality(asked, cholesky(covariance()), weight=1.0, ridge=0.1)
    assert not solution.pseudo_inverse
    assert delta(solution).isfinite().all()


def test_what_is_not_finite_stays_so() -> None:
    """A collapsed model's keys: the trajectory records it, no error hides it."""
    asked = memory(3)
    asked.keys_IN[0, 0] = float("nan")
    for solution in (
        equality(asked, cholesky(covariance()), weight=1.0),
        least_squares(asked, cholesky(covariance()), weight=1.0),
    ):
        assert not delta(solution).isfinite().all()


@pytest.mark.parametrize("num_keys", [1, 5, INPUTS + 3])
def test_the_accumulated_system_without_earlier_keys_and_ridge_is_least_squares(num_keys: int) -> None:
    c0, asked = covariance(), memory(num_keys)
    plain = delta(least_squares(asked, cholesky(c0), weight=7.0))
    torch.testing.assert_close(delta(accumulated(asked, c0, None, weight=7.0, ridge=0.0)), plain, rtol=1e-9, atol=1e-11)
    inverse = torch.linalg.inv(7.0 * c0)
    torch.testing.assert_close(delta(by_inverse(asked, inverse)), plain, rtol=1e-8, atol=1e-10)


def in_batches(keys: torch.Tensor, values: torch.Tensor, *, size: int, remember: bool) -> torch.Tensor:
    """The change after all batches, whose residuals are those that the batches before left."""
    c0, total = covariance(), torch.zeros(OUTPUTS, INPUTS, dtype=torch.float64)
    earlier = torch.zeros(INPUTS, INPUTS, dtype=torch.float64)
    for first in range(0, keys.shape[1], size):
        batch = keys[:, first : first + size]
        asked = KeyTargets(batch, values[:, first : first + size] - total @ batch)
        total = total + delta(accumulated(asked, c0, earlier if remember else None, weight=2.0, ridge=0.5))
        earlier = earlier + batch @ batch.T
    return total


def test_ten_batches_of_ten_are_one_batch_of_a_hundred_where_keys_are_accumulated() -> None:
    """OTE-SE, arXiv 2605.26670; the keys are frozen."""
    keys, values = drawn(INPUTS, 100, seed=5), drawn(OUTPUTS, 100, seed=6)
    whole = in_batches(keys, values, size=100, remember=True)
    assert float((in_batches(keys, values, size=10, remember=True) - whole).norm() / whole.norm()) < 1e-8
    assert float((in_batches(keys, values, size=10, remember=False) - whole).norm() / whole.norm()) > 0.1


def test_of_conflicting_edits_the_last_has_as_much_weight_as_the_first() -> None:
    """One key, two values: their mean, as one batch of both gives, and not the last value alone."""
    key = drawn(INPUTS, 1, seed=5)
    values = torch.cat([torch.zeros(OUTPUTS, 1), torch.ones(OUTPUTS, 1)], 1).double()
    found = in_batches(torch.cat([key, key], 1), values, size=1, remember=True) @ key
    alone = in_batches(key, values[:, 1:], size=1, remember=True) @ key
    assert bool((found < alone).all()) and bool((found > 0).all())
