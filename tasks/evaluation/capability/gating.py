"""Gates the slow benchmarks by perplexity: at which checkpoints of a trajectory capability is evaluated.

A checkpoint has a level: its perplexity relative to the pristine model's, in steps of a ratio. Capability is due where
the level differs from that of the previous checkpoint, at edit count 0, and at the last. By induction a skipped
checkpoint has the level of the last evaluated one: slow drift is not missed, and a model whose perplexity moved once
and stays there is evaluated only once. `capability_gating.sql` computes the same in SQL, and what the gate would have
saved and missed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def level(mean_nll: float, base_mean_nll: float, *, ratio: float) -> int | None:
    """The distance of a perplexity from the pristine model's, in steps of a ratio, to the nearest step.

    Args:
        mean_nll: Mean token NLL of the checkpoint, in nats; its exponential is the perplexity.
        base_mean_nll: The pristine model's on the same texts.
        ratio: The size of a step, above 1.

    Returns:
        0 near the pristine model, negative below it; None, a separate level, where one of the two is not finite.
    """
    if not (math.isfinite(mean_nll) and math.isfinite(base_mean_nll)):
        return None
    return math.floor((mean_nll - base_mean_nll) / math.log(ratio) + 0.5)


def is_due(now: float | None, before: float | None, base: float | None, *, ratio: float) -> bool:
    """Whether capability is evaluated at a checkpoint that is neither the first nor the last.

    Args:
        now: The checkpoint's mean token NLL in nats; None where it was not measured.
        before: That of the trajectory's previous checkpoint; for the first, the pristine model's.
        base: The pristine model's.
        ratio: The size of a step of perplexity, above 1.

    Returns:
        Whether the level has changed; True also where one of them was not measured.
    """
    if now is None or before is None or base is None:
        return True
    return level(now, base, ratio=ratio) != level(before, base, ratio=ratio)


def mean_nll(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean token NLL over rows of the table `perplexity`, in nats; None where no text was measured."""
    measured = [row for row in rows if row["nll"] is not None and row["num_tokens"]]
    tokens = sum(row["num_tokens"] for row in measured)
    return sum(row["nll"] for row in measured) / tokens if tokens else None
