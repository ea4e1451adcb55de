"""The smallest drop of general ability that a run can detect, from the numbers of its items, before it starts.

Base and edited model answer the same items. The test uses those that change: `lost` were right before and are wrong
now, `gained` were wrong and are right. McNemar's test asks whether more than half of them are lost (Q. McNemar, Note on
the sampling error of the difference between correlated proportions or percentages, Psychometrika 12, 1947); its exact
form uses the binomial distribution of the lost among the changed. The power is exact too: a sum over the number of
items that change and the number of those that are lost (S. W. Duffy, Asymptotic and exact power for the McNemar test,
Biometrics 40, 1984).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.capability.scoring import is_right_or_wrong
from overedit.tasks.evaluation.capability.task_loading import TaskLoader
from overedit.tasks.evaluation.evaluator import awaits_capability
from overedit.tasks.evaluation.measured import MeasuredCheckpoint
from overedit.tasks.evaluation.options import MeasureOptions
from overedit.tasks.warehouse.statistics import ALPHA, CHURN, POWER, smallest_detectable_drop


def before_the_run(bases: Iterable[MeasuredCheckpoint], options: MeasureOptions, loader: TaskLoader) -> list[str]:
    """Load every benchmark before anything long starts, and report the drops that the run will be able to detect.

    Args:
        bases: The pristine model, at each ordering of the requests. If all its benchmarks are stored already, nothing
            is loaded or reported.
        options: What is measured.
        loader: Loads the benchmarks, and keeps them for the run.

    Raises:
        ValueError: There is no such task, or its local items lack a file, split or column.
        OSError: A task's items can be neither found nor downloaded.
    """
    if not any(awaits_capability(base, options) for base in bases):
        return []
    sizes = loader.load().num_items(options.capability.most_items, of=is_right_or_wrong)
    return detection_lines(options.capability, sizes)


def detection_lines(options: CapabilityOptions, sizes: Mapping[str, int]) -> list[str]:
    """Describe the detectable drops in a sentence or two; an empty list where no general benchmark is run.

    Args:
        options: Which benchmarks.
        sizes: Items of each task or group that counts by itself, of tasks whose items are right or wrong.
    """
    if not sizes or options.when == "never":
        return []
    total = sum(sizes.values())
    how = (
        f"{POWER:.0%} power (paired exact McNemar test at {ALPHA:.0%}; {CHURN:.0%} of the items lost by chance, and as "
        "many gained)"
    )
    if len(sizes) == 1:
        return [f"capability: {next(iter(sizes))}, {total:,} items: {_seen(total)} with {how}"]
    fewest, most = (pick(sizes.items(), key=lambda item: item[1]) for pick in (min, max))
    lines = [f"capability: {len(sizes)} tasks, {total:,} items: of all items together {_seen(total)} with {how}"]
    if fewest[1] == most[1]:
        return [*lines, f"capability: of one task ({most[1]:,} items) {_seen(most[1])}"]
    ends = [f"of {name} ({size:,} items) {_seen(size)}" for name, size in (fewest, most)]
    return [*lines, f"capability: {'; '.join(ends)}"]


def _seen(num_items: int) -> str:
    drop = smallest_detectable_drop(num_items)
    return "no drop would be seen" if drop is None else f"a drop of {100 * drop:.1f} points would be seen"
