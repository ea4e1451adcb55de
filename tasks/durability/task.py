"""Making the checkpoints of a run after one more step, as a Prefect task."""

from __future__ import annotations

from collections.abc import Sequence

from overedit.tasks.durability.derive import Derived, Settings, Step, derive_all
from overedit.tasks.system.stage_key import SourceIndex
from overedit.tasks.system.task_runs import shown_in_flow, stage


@stage
def derive(steps: Sequence[Step], settings: Settings, sources: SourceIndex, run: str) -> Derived:
    """Make the checkpoints that are missing; see `derive_all`."""
    return derive_all(steps, settings, sources=sources, show=shown_in_flow(run))
