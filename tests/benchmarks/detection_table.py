"""The table of docs/capability.md: the smallest losses that so many items can see, with 80 % power."""

from __future__ import annotations

from overedit.tasks.warehouse.statistics import smallest_detectable_drop
from tests.support.statistics_oracles import smallest_unpaired_drop

SIZES = (100, 200, 500, 1000)
CHURNS = (0.0, 0.02, 0.05, 0.1)
BASE_RATE = 0.6


def table() -> str:
    """A row a number of items: by the share lost by chance, and where the items are not the same ones."""
    lines = [
        "| items | " + " | ".join(f"{churn:.0%} churn" for churn in CHURNS) + f" | not paired, base {BASE_RATE:.0%} |",
        "|---" * (len(CHURNS) + 2) + "|",
    ]
    for size in SIZES:
        drops = [smallest_detectable_drop(size, churn=churn) for churn in CHURNS]
        drops.append(smallest_unpaired_drop(size, base_rate=BASE_RATE))
        cells = ["-" if drop is None else f"{100 * drop:.1f}" for drop in drops]
        lines.append(f"| {size:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
