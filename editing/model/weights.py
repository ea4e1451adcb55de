"""Weight updates, and their application: the only file that writes a model's parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn


class LowRank(NamedTuple):
    """W += left @ right, in the layout in which W is stored."""

    left: torch.Tensor
    """(rows of W, rank)."""
    right: torch.Tensor
    """(rank, columns of W)."""


class Delta(NamedTuple):
    """W += tensor."""

    tensor: torch.Tensor
    """Shape of W."""


class Replacement(NamedTuple):
    """W = tensor, exactly."""

    tensor: torch.Tensor
    """Shape and dtype of W."""


WeightUpdate = dict[str, LowRank | Delta | Replacement]
"""Parameter name -> its change."""


def apply_update(model: nn.Module, update: Mapping[str, LowRank | Delta | Replacement]) -> None:
    """Write an update into a model's parameters.

    A change is computed in its own dtype or the parameter's, whichever is wider, and added there; the sum is rounded
    once to the parameter's dtype.

    Args:
        model: Changed in place, on its device.
        update: Parameter name -> change.

    Raises:
        ValueError: The model has no such parameter, or a shape (for a replacement also the dtype) does not fit;
            nothing has been written.
    """
    parameters = {name: _parameter(model, name) for name in update}
    for name, change in update.items():
        _check(name, parameters[name], change)
    with torch.no_grad():
        for name, change in update.items():
            _write(parameters[name], change)


def summed(updates: Sequence[WeightUpdate]) -> WeightUpdate:
    """The sum of low-rank updates of the same parameters, as factors."""
    total: WeightUpdate = {}
    for name in updates[0]:
        changes = [change for update in updates if isinstance(change := update[name], LowRank)]
        total[name] = LowRank(torch.cat([c.left for c in changes], 1), torch.cat([c.right for c in changes], 0))
    return total


@contextmanager
def applied(model: nn.Module, update: Mapping[str, LowRank | Delta | Replacement]) -> Iterator[None]:
    """Edit a model inside a `with` block; afterwards its weights are restored bit for bit."""
    with kept(model, update):
        apply_update(model, update)
        yield


@contextmanager
def kept(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Restore these parameters bit for bit after a `with` block, whatever is written to them in it."""
    before = {name: _parameter(model, name).detach().clone() for name in names}
    try:
        yield
    finally:
        write_tensors(model, before)


def read_tensors(model: nn.Module, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Copies of parameters, on the CPU, in their own dtype.

    Raises:
        ValueError: The model has no such parameter.
    """
    return {name: _parameter(model, name).detach().to("cpu", copy=True).contiguous() for name in names}


def write_tensors(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put exact values into parameters.

    Raises:
        ValueError: The model has no such parameter, or its shape or dtype differs; nothing has been written.
    """
    apply_update(model, {name: Replacement(tensor) for name, tensor in tensors.items()})


def checksum(tensor: torch.Tensor) -> str:
    """SHA-256 (hex) of a tensor's dtype, shape and bytes, whatever its device."""
    plain = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{plain.dtype}{tuple(plain.shape)}".encode())
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _parameter(model: nn.Module, name: str) -> nn.Parameter:
    try:
        return model.get_parameter(name)
    except AttributeError:
        raise ValueError(f"the model has no parameter {name!r}") from None


def _check(name: str, parameter: nn.Parameter, change: LowRank | Delta | Replacement) -> None:
    if isinstance(change, LowRank):
        fits = change.left.shape[-1] == change.right.shape[0]
        shape = torch.Size((change.left.shape[0], change.right.shape[-1]))
    else:
        fits, shape = True, change.tensor.shape
    if not fits or shape != parameter.shape:
        raise ValueError(f"{name}: the parameter is {tuple(parameter.shape)}, the update {tuple(shape)}")
    if isinstance(change, Replacement) and change.tensor.dtype != parameter.dtype:
        raise ValueError(f"{name}: the parameter is {parameter.dtype}, its replacement {change.tensor.dtype}")


def _write(parameter: nn.Parameter, change: LowRank | Delta | Replacement) -> None:
    if isinstance(change, Replacement):
        parameter.copy_(change.tensor)
    elif isinstance(change, Delta):
        delta = change.tensor.to(parameter.device)
        parameter.copy_(parameter + delta)  # type promotion: added in the wider of the two dtypes
    else:
        left, right = (factor.to(parameter.device) for factor in change)
        if left.dtype == right.dtype == parameter.dtype:
            parameter.addmm_(left, right)
        else:
            parameter.copy_(parameter + left @ right)
