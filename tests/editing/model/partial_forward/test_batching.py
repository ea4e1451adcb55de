"""Batches of token sequences, and their padding."""

from __future__ import annotations

from overedit.editing.model.partial_forward.batching import length_groups, pad_with_last, plan_batches


def test_batches_keep_the_order_and_the_limit() -> None:
    lengths = [3, 5, 12, 2, 1]
    assert plan_batches(lengths, 8, padded=False) == [[0, 1], [2], [3, 4]]
    assert plan_batches(lengths, 1000, padded=False) == [[0, 1, 2, 3, 4]]
    assert plan_batches(lengths, 1, padded=False) == [[0], [1], [2], [3], [4]]


def test_padding_counts_where_asked() -> None:
    assert plan_batches([1, 2, 3], 6, padded=False) == [[0, 1, 2]]
    assert plan_batches([1, 2, 3], 6, padded=True) == [[0, 1], [2]]
    assert plan_batches([1, 2, 3], 6, order=[2, 0], padded=True) == [[2, 0]]


def test_padding_repeats_the_last_token() -> None:
    assert pad_with_last([(4, 5, 6), (7,), (8, 9)]).tolist() == [[4, 5, 6], [7, 7, 7], [8, 9, 9]]


def test_length_groups_keep_every_sequence_once_within_the_bound() -> None:
    lengths = [5, 40, 7, 40, 12, 6, 39, 1]
    groups = length_groups(lengths, [0, 1, 2, 3, 4, 5, 6, 7], 80)
    assert sorted(n for group in groups for n in group) == list(range(8))
    assert all(len(group) * max(lengths[n] for n in group) <= 80 for group in groups)
    assert length_groups(lengths, [1], 10) == [[1]]  # a sequence longer than the bound has a pass of its own
    assert length_groups([9] * 3, [2, 0, 1], 100) == [[2, 0, 1]]
