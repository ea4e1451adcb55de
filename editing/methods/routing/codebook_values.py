"""Training of a codebook's values.

Shapes: N values, B edits, O outputs of the module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from overedit.editing.methods.base import Progress
from overedit.editing.methods.locate_then_edit.subjects import PromptSet
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions
from overedit.editing.methods.locate_then_edit.values import optimize_values
from overedit.editing.methods.routing.codebook import Codebook
from overedit.editing.model.tokenization import MarkedSequence


def train_values(
    model: PreTrainedModel,
    mlp: str,
    marked: Sequence[MarkedSequence],
    book: Codebook,
    entries: Sequence[int],
    *,
    learning_rate: float,
    num_steps: int,
    progress: Progress,
) -> torch.Tensor:
    """Train the values of edits, and write them into the codebook.

    The edits of one entry are trained one after the other, each from the value that the one before has left; everything
    else together.

    Args:
        model: Bit-identical on return.
        mlp: The site whose output the values replace, as `27.mlp`.
        marked: The edits' prompts, marked at their last token, and targets.
        book: Has the values to start from; changed in place.
        entries: The index of each edit's entry.
        learning_rate: Step size of Adam.
        num_steps: Its steps.
        progress: Called with (steps done, total steps).

    Returns:
        Losses before and after, (2, B).
    """
    options = ValueOptions(
        num_steps=num_steps + 1,  # the last one only evaluates the loss
        learning_rate=learning_rate,
        weight_decay=0,
        kl_factor=0,
        clamp_norm_factor=1e30,
        stop_below=0,
    )
    losses_2B = torch.empty(2, len(marked))
    done = 0

    def advance(steps: int, total: int) -> None:
        progress(done * total // len(chosen) + steps, total * len(marked) // len(chosen))

    for chosen in _rounds(entries):
        rows = [entries[i] for i in chosen]
        sets = [PromptSet((marked[i],), marked[i]) for i in chosen]
        start_ND = book.values_NO[rows].to(model.device)
        found = optimize_values(model, mlp, sets, options, start_ND=start_ND, progress=advance)
        book.values_NO[rows] = (found.initial_ND + found.delta_ND).float().cpu()
        losses_2B[:, chosen] = torch.stack([found.first_losses_N, found.last_losses_N]).float().cpu()
        done += len(chosen)
    return losses_2B


def _rounds(entries: Sequence[int]) -> list[list[int]]:
    """Edits that can be trained together: the first one of each entry, then the second ones, and so on."""
    rounds: list[list[int]] = []
    seen: Counter[int] = Counter()
    for edit, entry in enumerate(entries):
        if seen[entry] == len(rounds):
            rounds.append([])
        rounds[seen[entry]].append(edit)
        seen[entry] += 1
    return rounds
