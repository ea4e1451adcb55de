"""Values together with every term of the loss at every step, which the optimization itself does not keep."""

from __future__ import annotations

from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from overedit.editing.methods.locate_then_edit import values as module
from overedit.editing.methods.locate_then_edit.values import Values, optimize_values


class Course(NamedTuple):
    """What was seen at each step, before its update, (N, S) each; NaN where a request had stopped."""

    loss: torch.Tensor
    nll: torch.Tensor
    kl: torch.Tensor
    """With its factor."""
    decay: torch.Tensor
    """With its factor."""
    delta_norm: torch.Tensor


class RecordedValues(NamedTuple):
    """`Values`, and the course of their optimization."""

    initial_ND: torch.Tensor
    delta_ND: torch.Tensor
    first_losses_N: torch.Tensor
    last_losses_N: torch.Tensor
    num_steps_N: torch.Tensor
    course: Course


class _Recorded(module._Descent):
    """A descent that keeps each step; those of a group whose descent failed are dropped with it."""

    courses: list[torch.Tensor]

    def run(self, advance: Any) -> Values:
        self.steps: list[torch.Tensor] = []
        values = super().run(advance)
        course_FNS = torch.stack(self.steps, -1)
        missing = self._options.num_steps - course_FNS.shape[-1]
        course_FNS = torch.nn.functional.pad(course_FNS, (0, missing), value=torch.nan)
        stopped_NS = torch.arange(self._options.num_steps, device=course_FNS.device) >= values.num_steps_N[:, None]
        self.courses.append(course_FNS.masked_fill(stopped_NS, torch.nan))
        return values

    def _loss(self, batch: Any, logits_UV: torch.Tensor) -> Any:
        loss, gradient_UV = super()._loss(batch, logits_UV)
        seen_FN = self._initial_ND.new_full((len(Course._fields), len(self._prompt_sets)), torch.nan)
        seen_FN[:, batch.members] = torch.stack([*loss, self._delta_ND[batch.members].norm(dim=1)])
        self.steps.append(seen_FN)
        return loss, gradient_UV


def recorded_values(*arguments: Any, **more: Any) -> RecordedValues:
    """`optimize_values`, and the course of the optimization."""
    courses: list[torch.Tensor] = []
    with patch.object(module, "_Descent", type("Recorded", (_Recorded,), {"courses": courses})):
        values = optimize_values(*arguments, **more)
    return RecordedValues(*values[: len(RecordedValues._fields) - 1], Course(*torch.cat(courses, 1)))
