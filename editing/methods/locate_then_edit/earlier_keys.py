"""The keys of all edits so far, as the sum of K K^T, in a method's state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from overedit.editing.methods.base import State
from overedit.editing.methods.locate_then_edit.algorithm import LayerProblem


def earlier_keys(problem: LayerProblem) -> torch.Tensor | None:
    """K_p K_p^T of the edits before this batch, (I, I) float64 on the device of its keys; None before the first."""
    found = problem.state.get(_name(problem.site))
    return None if found is None else found.to(problem.targets.keys_IN.device, copy=True)


def with_keys(problems: Sequence[LayerProblem], _: Any) -> State:
    """What to put into the state: K_p K_p^T of each site with the batch's keys added."""
    return {_name(problem.site): _sum(problem).cpu() for problem in problems}


def _sum(problem: LayerProblem) -> torch.Tensor:
    gram_II, earlier_II = problem.targets.keys_IN @ problem.targets.keys_IN.T, earlier_keys(problem)
    return gram_II if earlier_II is None else earlier_II + gram_II


def _name(site: str) -> str:
    return f"{site}.earlier_keys"
