"""What a turn of a locate-then-edit method reports.

Shapes: N edits, I inputs and O outputs of a projection.
"""

from __future__ import annotations

import math

import torch

from overedit.editing.methods.base import State
from overedit.editing.methods.locate_then_edit.covariance import SecondMoment
from overedit.editing.methods.locate_then_edit.solvers import KeyTargets, Solution
from overedit.editing.methods.locate_then_edit.values import Values


def diagnostics(targets: KeyTargets, moment: SecondMoment, solution: Solution) -> dict[str, float]:
    """Early signs of collapse (EMMET, arXiv 2403.14236, section 3, names the first two distances).

    `preservation`: root mean square change of the projection's output on ordinary text, sqrt(tr(Delta C0 Delta^T));
    `memorization`: mean norm of the output still missing at the edited keys after the write; `residual`: that before
    it; `update_norm`: Frobenius norm of Delta; `condition_number`: of the system solved, a lower bound.
    """
    residual_ON, weights_NI = solution.residual_ON, solution.weights_NI
    if weights_NI.shape[0] > len(residual_ON):  # more edits than outputs: Delta itself is the smaller factor
        residual_ON, weights_NI = torch.eye(len(residual_ON)).to(residual_ON), residual_ON @ weights_NI
    inner_NN = residual_ON.T @ residual_ON
    changed_NI = weights_NI @ moment.matrix_II.to(weights_NI.device)
    missing_ON = targets.residual_ON - residual_ON @ (weights_NI @ targets.keys_IN)
    return {
        "residual": float(targets.residual_ON.norm(dim=0).mean()),
        "memorization": float(missing_ON.norm(dim=0).mean()),
        "preservation": math.sqrt(max(float((inner_NN * (changed_NI @ weights_NI.T)).sum()), 0.0)),
        "update_norm": math.sqrt(max(float((inner_NN * (weights_NI @ weights_NI.T)).sum()), 0.0)),
        "condition_number": solution.condition_number,
        "pseudo_inverse": int(solution.pseudo_inverse),
    }


def value_log(values: Values, norm: State) -> dict[str, float | int | str]:
    """Log entries of the value optimization: means over a turn's requests, and the norm of an anchor."""
    lengths_N = values.delta_ND.norm(dim=1) / values.initial_ND.norm(dim=1)
    log: dict[str, float | int | str] = {
        "value/loss_before": float(values.first_losses_N.mean()),
        "value/loss_after": float(values.last_losses_N.mean()),
        "value/steps": float(values.num_steps_N.double().mean()),
        "value/relative_shift": float(lengths_N.mean()),
    }
    for anchor_norm in norm.values():
        log["value/anchor_norm"] = float(anchor_norm)
    return log
