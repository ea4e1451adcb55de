"""The edit counts that a search may choose: with the fewest edits, and with the most."""

from __future__ import annotations

from overedit.tasks.search.bracket import Verdict, next_count
from overedit.tasks.search.options import SearchOptions

_ENDS = 300
"""Collapses that are tried, at even distances on the logarithmic scale."""


def counts_chosen(search: SearchOptions, collapse_at: int | None) -> tuple[int, ...]:
    """The edit counts of a search for one definition, if a model is good below a count and bad from it on.

    Args:
        search: The search; `stop` must be known.
        collapse_at: That count; None if the model never collapses.
    """
    verdicts: dict[int, Verdict] = {}
    while (count := next_count(search, verdicts)) is not None:
        is_bad = collapse_at is not None and count >= collapse_at
        verdicts[count] = Verdict("bad", "bad") if is_bad else Verdict("good", "good")
    return tuple(sorted(verdicts))


def fewest_and_most(search: SearchOptions) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The edit counts whose sum is the smallest and the largest, over collapses at 300 counts up to the last one."""
    assert search.stop is not None
    ends = {round(search.stop ** (step / (_ENDS - 1))) for step in range(_ENDS)}
    chosen = [counts_chosen(search, end) for end in sorted(ends)] + [counts_chosen(search, None)]
    return min(chosen, key=sum), max(chosen, key=sum)
