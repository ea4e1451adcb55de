"""A trajectory: a model edited turn by turn, with a checkpoint at each scheduled edit count.

Looking does not change what is looked at. The main line has a turn every `turn_size` edits from edit 0, whatever is
measured. A count inside a turn is a branch: the turn's first part, applied to the main line's weights, written as a
checkpoint and not continued from. So the model at n edits is the one that somebody who stopped at n would have, and it
does not depend on the other counts. A method that trains the cumulative set has the same main line if it continues from
its earlier weights; if it restarts from the pristine ones, every count is a branch from edit 0.

The seed of a turn is derived from the trajectory's seed and the turn's first and last edit, so a trajectory that was
stopped ends with the same bits as one that was not (see `editor.py`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import Method, MethodConfig, Progress, silent
from overedit.editing.model.weights import write_tensors
from overedit.editing.requests import EditRequest
from overedit.editing.storage.atomic import remove_leftovers
from overedit.editing.trajectory.checkpoint import Checkpoint, whole_checkpoints
from overedit.editing.trajectory.editor import LINE, Editor
from overedit.editing.trajectory.settings import TrajectorySettings


def run_trajectory(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: MethodConfig,
    *,
    method: Method,
    settings: TrajectorySettings,
    inputs: Mapping[str, Any] = MappingProxyType({}),
    progress: Progress = silent,
) -> Iterator[Checkpoint]:
    """Edit a model to the last scheduled count and yield the checkpoint at each; existing checkpoints are reused.

    The model changes while this runs and has its own weights again at the end. Where a turn of the main line leaves
    weights that are not finite, the trajectory ends with a checkpoint behind that turn.

    Args:
        model: The pristine model.
        tokenizer: Its tokenizer.
        requests: At least as many as the last edit count, in the order of editing.
        config: The method's configuration.
        method: The method's row in the registry.
        settings: Schedule, source, folder and checkpoint policy.
        inputs: Further arguments of the method in every turn, by name, computed from the pristine model.
        progress: Called with (edits done, total edits).

    Raises:
        ValueError: The schedule is not increasing or asks for more edits than there are.
        StoppedError: A stop was requested; the same call resumes after the last turn.
        NoSpaceError: The disk has no room for the remaining checkpoints; the existing ones are whole.
    """
    counts, folder = settings.schedule.edit_counts, settings.folder
    check_counts(counts, len(requests))
    remove_leftovers(folder)
    done = {
        checkpoint.record.edit_count: checkpoint for checkpoint in whole_checkpoints(folder, settings.source.key_at)
    }
    bound = method._replace(function=partial(method.function, **inputs))
    editor = Editor(model, tokenizer, requests, config, bound, settings, progress, done)
    try:
        for count in counts:
            end = end_of_line(done.values())
            if count not in done and (end is None or count < end.record.edit_count):
                editor.check_space([each for each in counts if each not in done])
                written = editor.checkpoint_at(count)
                done[written.record.edit_count] = written
                end = end_of_line(done.values())
            ended = end is not None and end.record.edit_count <= count
            checkpoint = end if end is not None and ended else done[count]
            progress(checkpoint.record.edit_count, counts[-1])
            yield checkpoint
            if ended:
                break
        if not settings.continues:
            shutil.rmtree(folder / LINE, ignore_errors=True)
            settings.changed(folder / LINE)
    finally:
        write_tensors(model, editor.base)


def end_of_line(checkpoints: Iterable[Checkpoint]) -> Checkpoint | None:
    """The checkpoint at which a trajectory ended early: the weights of its main line were no longer finite there."""
    ended = [each for each in checkpoints if not each.record.finite and each.record.branched_from is None]
    return min(ended, key=lambda each: each.record.edit_count, default=None)


def check_counts(edit_counts: Sequence[int], num_requests: int | None = None) -> None:
    """Check a schedule's edit counts.

    Raises:
        ValueError: They do not increase, start below 1, or exceed the number of requests.
    """
    if not edit_counts or edit_counts[0] < 1 or any(later <= earlier for earlier, later in pairwise(edit_counts)):
        raise ValueError(f"edit_counts: {list(edit_counts)} must increase, and the first must be 1 or more")
    if num_requests is not None and edit_counts[-1] > num_requests:
        raise ValueError(
            f"edit_counts: {edit_counts[-1]} edits are asked for, but the data holds {num_requests} requests"
        )
