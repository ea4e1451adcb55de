"""Anchors of the norm of values: what they scale, what they give up, and what they carry from turn to turn."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from overedit.editing.methods.locate_then_edit.anchor import anchored, mean_norm
from overedit.editing.methods.locate_then_edit.value_options import NormAnchor, ValueOptions
from overedit.editing.methods.locate_then_edit.values import Values

SITE = "1.layer"


def found(delta_ND: torch.Tensor) -> Values:
    num_N = torch.zeros(len(delta_ND))
    return Values(torch.ones_like(delta_ND), delta_ND, num_N, num_N, num_N.long(), num_N.bool())


def test_all_values_get_the_norm_and_those_far_above_it_are_given_up() -> None:
    before_ND = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    delta_ND = torch.tensor([[0.0, 4.0], [0.0, 1.0], [0.0, 9.0]])  # |v*| = 5, 2, 11
    values, state = anchored(found(delta_ND), before_ND, NormAnchor(norm=5.0, limit=2.0), {}, SITE)
    wanted_ND = before_ND + values.delta_ND
    assert values.given_up_N.tolist() == [False, False, True]
    assert wanted_ND[0].tolist() == [3.0, 4.0], "a value of the anchor's norm is a fixed point"
    assert wanted_ND[1].tolist() == [0.0, 5.0]
    assert values.delta_ND[2].tolist() == [0.0, 0.0]
    assert state == {f"{SITE}.anchor_norm": torch.tensor(5.0, dtype=torch.float64)}


def test_the_first_batch_sets_the_norm_of_all_later_ones() -> None:
    before_ND = torch.zeros(2, 2)
    _, state = anchored(found(torch.tensor([[2.0, 0.0], [0.0, 4.0]])), before_ND, NormAnchor(largest=0), {}, SITE)
    values, later = anchored(found(torch.tensor([[0.5, 0.0], [0.0, 7.0]])), before_ND, NormAnchor(), state, SITE)
    assert state == later == {f"{SITE}.anchor_norm": torch.tensor(3.0, dtype=torch.float64)}
    assert values.delta_ND.tolist() == [[3.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(("count", "dropped"), [(1, 0), (20, 0), (21, 1), (24, 1), (41, 2)])
def test_the_mean_leaves_out_the_largest(count: int, dropped: int) -> None:
    norms_N = torch.arange(count, 0, -1).double()
    assert mean_norm(norms_N, 0.05) == pytest.approx((count - dropped + 1) / 2)


def test_a_configuration_may_write_the_name_alone() -> None:
    assert ValueOptions.model_validate({"anchor": "nas"}).anchor == NormAnchor()
    with pytest.raises(ValidationError, match="Input should be 'nas'"):
        ValueOptions.model_validate({"anchor": "mean"})
