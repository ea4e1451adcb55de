"""The ridge solve: normal equations, both forms, both orientations."""

from __future__ import annotations

import pytest
import torch

from overedit.editing.methods.gradients.ridge import ridge_update
from overedit.editing.model.weights import Delta, LowRank
from tests.support.updates import dense


@pytest.mark.parametrize(("width_in", "width_out"), [(7, 5), (5, 7), (6, 6)])
@pytest.mark.parametrize("rows", [1, 4, 6, 20])
def test_update_solves_the_normal_equations(rows: int, width_in: int, width_out: int) -> None:
    torch.manual_seed(rows)
    keys, targets = torch.randn(rows, width_in), torch.randn(rows, width_out).double()
    stored = dense(ridge_update(keys, targets, 0.7, in_out=True)).double()
    gram = keys.double().T @ keys.double() + 0.7 * torch.eye(width_in)
    torch.testing.assert_close(gram @ stored, keys.double().T @ targets, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dense(ridge_update(keys, targets, 0.7, in_out=False)).double(), stored.T)
    assert torch.linalg.matrix_rank(stored, tol=1e-4) <= min(rows, width_in)


@pytest.mark.parametrize("in_out", [False, True])
def test_dual_and_primal_form_agree(in_out: bool) -> None:
    """Every row twice with twice the ridge is the same system, and has more rows than columns."""
    torch.manual_seed(0)
    keys, targets = torch.randn(30, 40), torch.randn(30, 9).double()
    dual = ridge_update(keys, targets, 1.0, in_out=in_out)
    assert isinstance(dual, LowRank)
    assert (dual.left.shape[1], dual.right.shape[0]) == (30, 30)
    twice = ridge_update(keys.repeat(2, 1), targets.repeat(2, 1), 2.0, in_out=in_out)
    assert isinstance(twice, Delta)
    torch.testing.assert_close(dense(dual), twice.tensor, rtol=1e-4, atol=1e-6)
