"""Intervals and p values of paired answers, against published and exact numbers."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest

from tasks.paired import holm, paired_interval, sign_test, two_sided


def test_the_interval_of_pairs() -> None:
    # four lost, one gained of ten: mean -3 / 12, variance 6 / 12 - 1 / 16 over 12
    assert paired_interval(-3, 5, 10) == pytest.approx((-0.62424, 0.12424), abs=5e-6)


def test_an_interval_is_never_of_no_width_and_stays_within_its_bounds() -> None:
    low, high = paired_interval(0, 0, 100)
    assert high == -low == pytest.approx(1.959964 * (1 / 102 / 102) ** 0.5)
    assert paired_interval(2, 2, 2)[1] == 1


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (4, 1), (0, 8), (30, 30), (120, 80)])
def test_the_sign_test_is_exact(lost: int, gained: int) -> None:
    n = lost + gained
    exact = min(Fraction(1), 2 * Fraction(sum(comb(n, k) for k in range(min(lost, gained) + 1)), 2**n))
    assert sign_test(lost, gained) == pytest.approx(float(exact), rel=1e-9)


def test_the_sign_test_takes_many_pairs() -> None:
    assert sign_test(5000, 5000) == 1 and 0 < sign_test(4000, 6000) < 1e-80


def test_the_p_of_an_intervals_end() -> None:
    assert two_sided(0.2, 0.2) == pytest.approx(0.05)
    assert two_sided(0.2, 0.0) is None


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
