"""The detection limit that a run states, against simulated runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.evaluation.power_analysis import detection_lines
from overedit.tasks.warehouse.statistics import mcnemar_power, smallest_detectable_drop
from tests.benchmarks.detection_table import table
from tests.support.statistics_oracles import smallest_unpaired_drop

EXPERIMENTS = 4000


def calls_a_loss(lost: int, gained: int) -> bool:
    """The decision of the exact test, by another road than the code's."""
    return lost > gained and binomtest(lost, lost + gained, 0.5).pvalue <= 0.05


def simulated(num_items: int, drop: float, churn: float) -> tuple[float, float]:
    """Shares of paired experiments, drawn item by item, in which a loss and in which any change is called."""
    generator = np.random.default_rng([num_items, round(1000 * churn)])
    shares = [churn + drop, churn, 1 - 2 * churn - drop]
    lost, gained = (np.zeros(EXPERIMENTS, int) for _ in range(2))
    for number in range(EXPERIMENTS):
        fates = generator.choice(3, size=num_items, p=shares)
        lost[number], gained[number] = np.count_nonzero(fates == 0), np.count_nonzero(fates == 1)
    pairs = list(zip(lost.tolist(), gained.tolist(), strict=True))
    decided = {pair: calls_a_loss(*pair) for pair in set(pairs)}
    either = {pair: decided[pair] or calls_a_loss(pair[1], pair[0]) for pair in set(pairs)}
    return sum(decided[pair] for pair in pairs) / EXPERIMENTS, sum(either[pair] for pair in pairs) / EXPERIMENTS


@pytest.mark.parametrize("num_items", [100, 500, 800])
@pytest.mark.parametrize("churn", [0.02, 0.05, 0.1])
def test_the_stated_drop_is_found_as_often_as_stated(num_items: int, churn: float) -> None:
    drop = smallest_detectable_drop(num_items, churn=churn)
    assert drop is not None
    found, _ = simulated(num_items, drop, churn)
    assert found == pytest.approx(0.8, abs=0.03)
    assert simulated(num_items, 0.0, churn)[1] <= 0.05, "false alarms"


def test_the_power_is_the_sum_over_all_outcomes() -> None:
    """Against every outcome of six items, written out."""
    from math import comb

    whole = 0.0
    for lost in range(7):
        for gained in range(7 - lost):
            ways = comb(6, lost) * comb(6 - lost, gained)
            chance = ways * 0.6**lost * 0.1**gained * 0.3 ** (6 - lost - gained)
            whole += chance * calls_a_loss(lost, gained)
    assert whole == pytest.approx(0.6**6), "six of six lost is all that the test believes"
    assert mcnemar_power(6, 0.5, churn=0.1) == pytest.approx(whole)
    assert mcnemar_power(100, 0.0, churn=0.0) == 0.0


def test_more_items_see_smaller_drops_and_more_churn_hides_them() -> None:
    drops = [smallest_detectable_drop(n) or 1.0 for n in (50, 100, 200, 500, 1000, 14_042)]
    assert drops == sorted(drops, reverse=True) and drops[-1] < 0.01
    by_churn = [smallest_detectable_drop(500, churn=churn) or 1.0 for churn in (0.0, 0.01, 0.05, 0.1)]
    assert by_churn == sorted(by_churn)
    assert by_churn[0] == pytest.approx(0.0155, abs=0.001)  # six lost of none gained; P(Bin(500, drop) >= 6) = 0.8


def test_what_cannot_be_lost_cannot_be_found() -> None:
    assert smallest_detectable_drop(5) is None
    assert smallest_detectable_drop(100, base_rate=0.1) is None, "at most 5 points more than chance can be lost"
    assert smallest_detectable_drop(100, base_rate=0.9) == pytest.approx(smallest_detectable_drop(100), abs=1e-5)


def test_unpaired_intervals_need_a_larger_drop() -> None:
    paired, unpaired = smallest_detectable_drop(500), smallest_unpaired_drop(500, base_rate=0.6)
    assert paired is not None and unpaired is not None and unpaired > 2 * paired
    generator = np.random.default_rng(0)
    before, after = (generator.binomial(500, rate, EXPERIMENTS) / 500 for rate in (0.6, 0.6 - unpaired))

    def bounds(share: np.ndarray, sign: int) -> np.ndarray:
        z = 1.959964
        return (share + z * z / 1000 + sign * z * np.sqrt(share * (1 - share) / 500 + z * z / 1e6)) / (1 + z * z / 500)

    assert np.mean(bounds(after, 1) < bounds(before, -1)) == pytest.approx(0.8, abs=0.03)
    assert smallest_unpaired_drop(5, base_rate=0.2) is None


def test_a_run_says_what_it_will_see() -> None:
    options = CapabilityOptions(tasks=("a", "b", "c"))
    together, apart = detection_lines(options, {"a": 200, "b": 200, "c": 200})
    all_drop, one_drop = (100 * (smallest_detectable_drop(n) or 0) for n in (600, 200))
    assert together == (
        f"capability: 3 tasks, 600 items: of all items together a drop of {all_drop:.1f} points would be seen with 80% "
        "power (paired exact McNemar test at 5%; 5% of the items lost by chance, and as many gained)"
    )
    assert apart == f"capability: of one task (200 items) a drop of {one_drop:.1f} points would be seen"
    assert (
        "of b (4 items) no drop would be seen; of a (900 items) a drop"
        in detection_lines(options, {"a": 900, "b": 4})[1]
    )
    assert len(detection_lines(options, {"a": 100})) == 1
    assert detection_lines(options, {}) == [] == detection_lines(CapabilityOptions(when="never"), {"a": 1})


def test_the_documented_table_is_the_computed_one(repository: Path) -> None:
    assert f"\n\n{table()}\n\n" in (repository / "docs" / "capability.md").read_text()
