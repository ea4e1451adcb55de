"""Intervals and tests: against textbook numbers, and how often they hold what they claim on made-up draws."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from overedit.tasks.warehouse.statistics import holm
from overedit.tasks.warehouse.warehouse import Warehouse
from tests.support.statistics_oracles import paired_bootstrap

DRAWS = 20_000
BAND = (0.93, 0.97)
"""How often an interval of 95 % may hold the truth, over draws of random rates."""


def covers(low: NDArray[np.float64], high: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    return float(np.mean((low - 1e-12 <= truth) & (truth <= high + 1e-12)))


def computed(root: Path, sql: str, **columns: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The answer of the warehouse's macros over a table of draws."""
    with Warehouse(root).connect() as connection:
        connection.register("draws", pa.table(columns))
        answer = connection.sql(f"SELECT {sql} FROM draws").to_arrow_table()
    return {name: answer[name].to_numpy() for name in answer.column_names}


def rates_of_pairs(generator: np.random.Generator, number: int, *, most: float = 1.0) -> NDArray[np.float64]:
    """(number, 3) rates of lost, gained and unchanged items: a share right before, of which a share up to `most` is
    lost, and of the others as much is gained."""
    right, lost, gained = generator.random(number), *(most * generator.random((2, number)))
    rates = np.stack([right * lost, (1 - right) * gained], 1)
    return np.concatenate([rates, 1 - rates.sum(1, keepdims=True)], 1)


@pytest.mark.parametrize("n", [10, 50, 300, 3000])
def test_wilsons_interval_covers_what_it_says(tmp_path: Path, n: int) -> None:
    generator = np.random.default_rng(n)
    rate = generator.random(DRAWS)
    found = computed(
        tmp_path, f"wilson_low(p, {n}) AS low, wilson_high(p, {n}) AS high", p=generator.binomial(n, rate) / n
    )
    assert BAND[0] <= covers(found["low"], found["high"], rate) <= BAND[1]


PAIRED = "paired_low(gained - lost, lost + gained, {n}) AS low, paired_high(gained - lost, lost + gained, {n}) AS high"


@pytest.mark.parametrize("n", [10, 30, 100, 840, 5000])
def test_the_paired_interval_covers_what_it_says(tmp_path: Path, n: int) -> None:
    generator = np.random.default_rng(n)
    rates = rates_of_pairs(generator, DRAWS)
    lost, gained, _ = generator.multinomial(n, rates).T
    found = computed(tmp_path, PAIRED.format(n=n), lost=lost, gained=gained)
    assert BAND[0] <= covers(found["low"], found["high"], rates[:, 1] - rates[:, 0]) <= BAND[1]


@pytest.mark.parametrize("n", [10, 30, 100, 840])
def test_the_paired_interval_holds_where_next_to_nothing_changes(tmp_path: Path, n: int) -> None:
    """Where no interval of few items can be exact it is to be wide rather than narrow."""
    generator = np.random.default_rng(n)
    rates = rates_of_pairs(generator, DRAWS, most=0.02)
    lost, gained, _ = generator.multinomial(n, rates).T
    found = computed(tmp_path, PAIRED.format(n=n), lost=lost, gained=gained)
    assert covers(found["low"], found["high"], rates[:, 1] - rates[:, 0]) >= BAND[0]


def test_the_paired_interval_covers_changes_that_are_fractions(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    n, number = 60, 4_000
    shapes = generator.uniform(0.3, 3, (4, number))
    before = generator.beta(shapes[0], shapes[1], (n, number))
    change = generator.beta(shapes[2], shapes[3], (n, number)) - before
    truth = shapes[2] / (shapes[2] + shapes[3]) - shapes[0] / (shapes[0] + shapes[1])
    sql = f"paired_low(changes, squares, {n}) AS low, paired_high(changes, squares, {n}) AS high"
    found = computed(tmp_path, sql, changes=change.sum(0), squares=(change**2).sum(0))
    assert BAND[0] <= covers(found["low"], found["high"], truth) <= 0.99


@pytest.mark.parametrize("n", [50, 200, 840])
def test_the_bootstraps_interval_covers_what_it_says(n: int) -> None:
    generator = np.random.default_rng(n)
    rates = rates_of_pairs(generator, 2_000)
    found = []
    for seed, counts in enumerate(generator.multinomial(n, rates)):
        after = np.repeat([-1.0, 1.0, 0.0], counts)
        found.append(paired_bootstrap(np.zeros(n), after, num_resamples=1_000, seed=seed))
    low, high = (np.array([getattr(change, end) for change in found]) for end in ("low", "high"))
    assert BAND[0] <= covers(low, high, rates[:, 1] - rates[:, 0]) <= BAND[1]


def test_the_bootstrap_of_a_mean_over_tasks_covers_what_it_says() -> None:
    """Three tasks of 40, 80 and 400 items, each with rates of its own; the mean over tasks, not over items."""
    generator = np.random.default_rng(9)
    sizes = (40, 80, 400)
    groups = [task for task, size in enumerate(sizes) for _ in range(size)]
    low, high, truth = [], [], []
    for seed in range(2_000):
        rates = rates_of_pairs(generator, len(sizes))
        counts = [generator.multinomial(size, rate) for size, rate in zip(sizes, rates, strict=True)]
        after = np.concatenate([np.repeat([-1.0, 1.0, 0.0], each) for each in counts])
        change = paired_bootstrap(np.zeros(len(after)), after, groups=groups, num_resamples=500, seed=seed)
        low.append(change.low)
        high.append(change.high)
        truth.append(np.mean(rates[:, 1] - rates[:, 0]))
    assert BAND[0] <= covers(np.array(low), np.array(high), np.array(truth)) <= BAND[1]


@pytest.mark.parametrize("n", [50, 200])
def test_the_mean_of_capability_covers_what_it_says(tmp_path: Path, n: int) -> None:
    """As `capability_by_edit_count` has it: four tasks, each of n items, and their mean."""
    generator = np.random.default_rng(n)
    rates = generator.random((2_000, 4))
    scores = generator.binomial(n, rates) / n
    identity = {"model": "m", "method": "x", "dataset": "d", "order_seed": 0, "metric": "acc", "main": True, "run": "r"}
    rows = [
        identity
        | {"trajectory": str(draw), "edit_count": 1, "task": str(task), "value": score, "num_samples": n, "chance": 0.0}
        | {"stderr": math.sqrt(score * (1 - score) / (n - 1))}
        for draw, task in itertools.product(range(len(scores)), range(4))
        for score in [float(scores[draw, task])]
    ]
    warehouse = Warehouse(tmp_path)
    warehouse.write("capability", rows, partition={"run": "r"}, key="k")
    sql = (
        "SELECT trajectory::INTEGER AS draw, low, high FROM capability_by_edit_count WHERE task = 'mean' ORDER BY draw"
    )
    found = warehouse.query(sql)
    low, high = found["low"].to_numpy(), found["high"].to_numpy()
    assert BAND[0] <= covers(low, high, rates.mean(1)) <= BAND[1]


def test_the_sign_test_is_the_binomials(tmp_path: Path) -> None:
    pairs = [(0, 0), (3, 1), (5, 0), (0, 5), (7, 7), (30, 12), (1500, 1400), (40_000, 39_000), (5000, 0)]
    lost, gained = (np.array(side) for side in zip(*pairs, strict=True))
    found = computed(tmp_path, "sign_test(lost, gained) AS p", lost=lost, gained=gained)["p"]

    def exact(lost: int, gained: int) -> float:
        n, tail = lost + gained, sum(math.comb(lost + gained, k) for k in range(min(lost, gained) + 1))
        return min(1.0, float(2 * tail / 2**n)) if n < 5_000 else float("nan")

    assert found[:7] == pytest.approx([exact(*pair) for pair in pairs[:7]], rel=1e-9)
    # half a million's square root: (40000 - 39000 - 1) / sqrt(79000) = 3.554 standard deviations
    assert found[7] == pytest.approx(math.erfc(999 / math.sqrt(79_000) / math.sqrt(2)), rel=1e-3)
    assert found[8] == 0.0


def test_the_t_quantile_is_the_tables(tmp_path: Path) -> None:
    table = {1: 12.7062, 2: 4.3027, 5: 2.5706, 30: 2.0423, 31: 2.0395, 40: 2.0211, 60: 2.0003, 120: 1.9799, 10**6: 1.96}
    found = computed(tmp_path, "t95(df) AS t", df=np.array(list(table)))["t"]
    assert found == pytest.approx(list(table.values()), abs=5.1e-5)


def test_holms_adjustment_is_the_papers() -> None:
    # sorted 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1 -> raised to 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.6]) == [0.8, 0.8]
    assert holm([]) == []


def test_the_bootstrap_weighs_each_group_the_same_and_repeats_itself() -> None:
    before, after = [1.0] * 90 + [0.0] * 10, [1.0] * 90 + [1.0] * 10
    pooled = paired_bootstrap(before, after, seed=1)
    by_task = paired_bootstrap(before, after, groups=["a"] * 90 + ["b"] * 10, seed=1)
    assert (pooled.difference, by_task.difference, pooled.n) == (pytest.approx(0.1), pytest.approx(0.5), 100)
    assert 0.03 < pooled.low < 0.1 < pooled.high < 0.18
    assert (by_task.low, by_task.high) == (0.5, 0.5)  # within a task nothing differs
    assert paired_bootstrap(before, after, seed=1) == pooled


def test_the_bootstrap_of_many_different_values_is_near_the_normal_interval() -> None:
    generator = np.random.default_rng(3)
    before, after = generator.random((2, 3_000))
    change = paired_bootstrap(before, after, num_resamples=2_000, seed=0)
    assert change != paired_bootstrap(before, after, num_resamples=2_000, seed=1)
    margin = 1.96 * np.std(after - before) / math.sqrt(3_000)
    assert (change.high - change.low) / 2 == pytest.approx(margin, rel=0.06)


@pytest.mark.parametrize(
    ("before", "after", "groups", "message"),
    [
        ([], [], None, "one row of pairs is wanted"),
        ([1.0], [1.0, 0.0], None, r"not shapes \(1,\) and \(2,\)"),
        ([1.0, math.nan], [1.0, 0.0], None, "not finite"),
        ([1.0, 0.0], [1.0, 0.0], ["a"], "groups: 1 for 2 pairs"),
    ],
)
def test_what_is_no_pairs_is_refused(
    before: list[float], after: list[float], groups: list[str] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(before, after, groups=groups, seed=0)
