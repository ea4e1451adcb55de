"""Running moments against two passes, and where they begin and end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from overedit.editing.methods.gradients.running_moments import Moments


def fresh(width: int) -> Moments:
    return Moments.none(width, torch.device("cpu"))


def test_moments_equal_two_passes_of_numpy() -> None:
    rows = torch.randn(1000, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1e4
    moments = fresh(6)
    for chunk in rows.split([1, 5, 400, 1, 93, 500]):
        moments = moments.merge(chunk)
    plain = rows.numpy().astype(np.float64)
    assert moments.num_rows == 1000
    np.testing.assert_allclose(moments.mean_F.numpy(), plain.mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.m2_F.numpy(), ((plain - plain.mean(0)) ** 2).sum(0), rtol=1e-9)


def test_moments_stay_exact_beyond_a_million_edits() -> None:
    """48 million rows seen: float32 could no longer count, and would lose the new rows' share of the mean."""
    before = Moments(48_000_000, torch.tensor([1.0]).double(), torch.tensor([48e6]).double())
    after = before.merge(torch.tensor([[3.0]]))
    assert after.num_rows == 48_000_001
    assert float(after.mean_F) == pytest.approx(1 + 2 / 48_000_001, rel=1e-15)
    assert float(after.m2_F) == pytest.approx(48e6 + 4 * 48e6 / 48_000_001, rel=1e-15)


def test_normalised_rows_by_hand() -> None:
    rows = torch.tensor([[1.0, 0.1], [2.0, 0.1], [3.0, 0.1]])
    normal = fresh(2).merge(rows).normalise(rows)
    assert normal.tolist() == [[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]  # the second never varied


def test_stored_moments_are_the_same_again() -> None:
    moments = fresh(3).merge(torch.randn(4, 3))
    state = moments.stored("3x0")
    assert {name: tensor.dtype for name, tensor in state.items()} == {
        "3x0.count": torch.int64,
        "3x0.mean": torch.float64,
        "3x0.m2": torch.float64,
    }
    loaded = Moments.load(state, "3x0", torch.device("cpu"))
    assert loaded is not None
    assert loaded.num_rows == 4
    assert torch.equal(loaded.mean_F, moments.mean_F)
    assert torch.equal(loaded.m2_F, moments.m2_F)
    assert Moments.load(state, "5x0", torch.device("cpu")) is None


def test_merging_and_normalising_leave_the_rows_alone() -> None:
    rows = torch.randn(4, 2, dtype=torch.float64)
    kept = rows.clone()
    fresh(2).merge(rows).normalise(rows)
    assert torch.equal(rows, kept)
