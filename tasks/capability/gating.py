"""The cheap gate before the dear benchmarks: at which checkpoints of a trajectory capability is evaluated.

A checkpoint has a level: its perplexity over the pristine model's, in steps of a ratio. Capability is due where the
level is not that of the checkpoint before it, at edit count 0, and at the last. By induction a checkpoint that is
skipped has the level of the last one evaluated: a slow drift cannot slip through, and a model whose perplexity moved
once and stays there is not evaluated again and again. `capability_gating.sql` has the same in SQL, and says what the
gate would have saved and missed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def level(mean_nll: float, base_mean_nll: float, *, ratio: float) -> int | None:
    """How many steps of a ratio perplexity has moved from the pristine model's, to the nearest step.

    Args:
        mean_nll: Mean token NLL of the checkpoint, nats; its exponential is the perplexity.
        base_mean_nll: The pristine model's on the same texts.
        ratio: A step, above 1.

    Returns:
        0 near the pristine model, negative below it; None, a level of its own, where one of the two is not a number.
    """
    if not (math.isfinite(mean_nll) and math.isfinite(base_mean_nll)):
        return None
    return math.floor((mean_nll - base_mean_nll) / math.log(ratio) + 0.5)


def is_due(now: float | None, before: float | None, base: float | None, *, ratio: float) -> bool:
    """Whether capability is evaluated at a checkpoint that is neither the first nor the last.

    Args:
        now: The checkpoint's mean token NLL; None where it was not measured.
        before: That of the trajectory's checkpoint before it, which for the first is the pristine model.
        base: The pristine model's.
        ratio: A step of perplexity, above 1.

    Returns:
        True also where one of them was not measured: then nothing speaks for leaving it out.
    """
    if now is None or before is None or base is None:
        return True
    return level(now, base, ratio=ratio) != level(before, base, ratio=ratio)


def mean_nll(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean token NLL over rows of the table `perplexity`, nats; None where no text was measured."""
    measured = [row for row in rows if row["nll"] is not None and row["num_tokens"]]
    tokens = sum(row["num_tokens"] for row in measured)
    return sum(row["nll"] for row in measured) / tokens if tokens else None
