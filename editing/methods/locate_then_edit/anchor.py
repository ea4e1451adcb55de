"""Anchors of values: NAS gives all values of a trajectory the same norm (arXiv 2602.02543).

A value z is optimized as the output of the last edited layer; v* is the part of it that the layer's MLP has to put out.
Both have the same shift, so an anchored v* is written back as a shift.

Shapes: N requests, D hidden size.
"""

from __future__ import annotations

import torch

from overedit.editing.methods.base import State
from overedit.editing.methods.locate_then_edit.value_options import NormAnchor
from overedit.editing.methods.locate_then_edit.values import Values


def anchored(
    values: Values, outputs_ND: torch.Tensor, anchor: NormAnchor, state: State, site: str
) -> tuple[Values, State]:
    """Give all values the anchor's norm.

    Args:
        values: As optimized.
        outputs_ND: v0, the unshifted outputs of the MLP at the subjects' last tokens of the bare prompts.
        anchor: Settings.
        state: Has the norm of earlier turns.
        site: The site whose values these are, which names the norm in the state.

    Returns:
        The values with their new shifts, 0 where the value is given up; the norm as a state, float64.
    """
    name = f"{site}.anchor_norm"
    before_ND = outputs_ND.to(values.delta_ND)
    wanted_ND = before_ND + values.delta_ND
    norms_N = wanted_ND.double().norm(dim=1)
    norm = anchor.norm or (float(state[name]) if name in state else mean_norm(norms_N, anchor.largest))
    given_up_N = norms_N > anchor.limit * norm
    scaled_ND = wanted_ND * (norm / norms_N)[:, None].to(wanted_ND) - before_ND
    delta_ND = torch.where(given_up_N[:, None], torch.zeros_like(scaled_ND), scaled_ND)
    return values._replace(delta_ND=delta_ND, given_up_N=given_up_N), {name: torch.tensor(norm, dtype=torch.float64)}


def mean_norm(norms_N: torch.Tensor, largest: float) -> float:
    """The mean of the norms up to their (1 - largest) quantile, which is rounded up to one of them."""
    bound = norms_N.quantile(1 - largest, interpolation="higher")
    return float(norms_N[norms_N <= bound].mean())
