"""Counts of the edits of a turn that the method could not move, or left out.

The value is written at the subject's last token. If the edited layer is the last one, no attention comes after it, so
the write reaches the prediction only where that token is also the prompt's last one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from overedit.editing.methods.locate_then_edit.subjects import PromptSet
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions
from overedit.editing.methods.locate_then_edit.values import Values

COUNTS = ("unmoved", "dropped")
"""Entries of a turn's log that are counts of edits; of the batches of a turn they are summed."""


def edit_counts(
    prompt_sets: Sequence[PromptSet], values: Values, options: ValueOptions, *, at_last_layer: bool
) -> dict[str, float]:
    """Count the edits that could not be moved, and those that were left out.

    Args:
        prompt_sets: Of the turn's requests.
        values: Their optimized values.
        options: Have the loss below which a value is not optimized.
        at_last_layer: Whether the value is the output of the model's last layer.

    Returns:
        `unmoved`: edits whose value cannot reach the prediction of the target, or whose shift is exactly 0 although the
        loss is not below the threshold. `dropped`: other edits whose loss was below it before the first step, or whose
        value is given up.
    """
    ahead_N = torch.tensor([at_last_layer and _is_ahead_of_prediction(each) for each in prompt_sets])
    still_N = (values.delta_ND == 0).all(dim=1).cpu()
    left_out_N = (values.first_losses_N < options.stop_below).cpu() | values.given_up_N.cpu()
    return {
        "unmoved": int((ahead_N | still_N & ~left_out_N).sum()),
        "dropped": int((~ahead_N & still_N & left_out_N).sum()),
    }


def _is_ahead_of_prediction(prompt_set: PromptSet) -> bool:
    """Whether the subject's last token comes before the prompt's last token in every context."""
    return all(marked.position < len(marked.ids) - len(marked.target) for marked in prompt_set.prompts)


def of_batches(logs: Sequence[Mapping[str, float | int | str]]) -> dict[str, float]:
    """The log of a turn from those of its batches: sums of the counts, means of everything else."""
    sums = {name: sum(float(log[name]) for log in logs) for name in logs[0]}
    return {name: total if name in COUNTS else total / len(logs) for name, total in sums.items()}
