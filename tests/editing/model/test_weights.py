"""Weight updates: what is written, and that it can be taken back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from overedit.editing.model.weights import (
    Delta,
    LowRank,
    Replacement,
    applied,
    apply_update,
    checksum,
    read_tensors,
    write_tensors,
)


def small(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4)).to(dtype)


def test_each_kind_of_update_by_hand() -> None:
    model = small()
    before = read_tensors(model, ["0.weight", "1.weight", "1.bias"])
    left, right = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0, 0.0, -1.0]])
    apply_update(
        model,
        {
            "0.weight": LowRank(left, right),
            "1.weight": Delta(torch.ones(4, 2)),
            "1.bias": Replacement(torch.arange(4.0)),
        },
    )
    after = read_tensors(model, before)
    torch.testing.assert_close(after["0.weight"] - before["0.weight"], torch.tensor([[1.0, 0, -1], [2, 0, -2]]))
    torch.testing.assert_close(after["1.weight"] - before["1.weight"], torch.ones(4, 2))
    assert torch.equal(after["1.bias"], torch.arange(4.0))


def test_half_precision_is_rounded_once() -> None:
    model = small(torch.bfloat16)
    before = model.get_parameter("0.weight").detach().clone()
    left, right = torch.randn(2, 5) * 1e-2, torch.randn(5, 3) * 1e-1
    apply_update(model, {"0.weight": LowRank(left, right)})
    assert torch.equal(model.get_parameter("0.weight"), (before.float() + left @ right).bfloat16())
    apply_update(model, {"1.weight": Delta(torch.full((4, 2), 1e-3))})
    assert model.get_parameter("1.weight").dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_applied_gives_every_bit_back(dtype: torch.dtype) -> None:
    model = small(dtype)
    sums = {name: checksum(parameter) for name, parameter in model.named_parameters()}
    update = {"0.weight": LowRank(torch.randn(2, 2), torch.randn(2, 3)), "1.weight": Delta(torch.randn(4, 2) * 1e-7)}
    with applied(model, update):
        assert checksum(model.get_parameter("0.weight")) != sums["0.weight"]
    assert {name: checksum(parameter) for name, parameter in model.named_parameters()} == sums
    with pytest.raises(KeyboardInterrupt), applied(model, update):
        raise KeyboardInterrupt
    assert {name: checksum(parameter) for name, parameter in model.named_parameters()} == sums


def test_reading_copies_and_writing_is_exact() -> None:
    model = small()
    kept = read_tensors(model, ["0.weight"])
    with torch.no_grad():
        model.get_parameter("0.weight").zero_()
    assert kept["0.weight"].abs().sum() > 0
    write_tensors(model, kept)
    assert torch.equal(model.get_parameter("0.weight"), kept["0.weight"])
    assert model.get_parameter("0.weight").requires_grad


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("2.weight", Delta(torch.zeros(1)), "the model has no parameter '2.weight'"),
        ("0.weight", Delta(torch.zeros(3, 2)), r"0.weight: the parameter is \(2, 3\), the update \(3, 2\)"),
        ("0.weight", LowRank(torch.zeros(3, 1), torch.zeros(1, 2)), r"the update \(3, 2\)"),
        ("0.weight", LowRank(torch.zeros(2, 1), torch.zeros(2, 3)), "the parameter is"),
        ("0.weight", Replacement(torch.zeros(2, 3).double()), "its replacement torch.float64"),
    ],
)
def test_wrong_updates_write_nothing(name: str, change: Delta | LowRank | Replacement, message: str) -> None:
    model = small()
    before = checksum(model.get_parameter("1.weight"))
    with pytest.raises(ValueError, match=message):
        apply_update(model, {"1.weight": Delta(torch.ones(4, 2)), name: change})
    assert checksum(model.get_parameter("1.weight")) == before


def test_checksum_sees_values_shape_and_dtype() -> None:
    zeros = torch.zeros(2, 3)
    others = (torch.zeros(3, 2), torch.zeros(6), zeros.bfloat16(), zeros.int(), torch.full((2, 3), 1e-30))
    assert len({checksum(tensor) for tensor in (zeros, *others)}) == 6
    turned = torch.randn(4, 3).T
    assert checksum(turned) == checksum(turned.clone(memory_format=torch.contiguous_format))
    assert checksum(-zeros) != checksum(zeros)  # bits, not values
    assert len(checksum(torch.tensor(1.0))) == 64
