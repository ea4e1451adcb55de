"""The edit counts that a search may choose."""

from __future__ import annotations

from overedit.tasks.planning.searches import counts_chosen, fewest_and_most
from overedit.tasks.search.options import SearchOptions

SEARCH = SearchOptions(search="collapse", start=10, stop=1000, growth=10, precision=0.5)


def test_a_search_that_finds_no_collapse_measures_the_growing_counts() -> None:
    assert counts_chosen(SEARCH, None) == (10, 100, 1000)


def test_a_search_halves_the_gap_in_which_the_model_collapses() -> None:
    chosen = counts_chosen(SEARCH, 200)
    assert set(chosen) >= {10, 100, 1000}
    good, bad = max(c for c in chosen if c < 200), min(c for c in chosen if c >= 200)
    assert bad - good <= 0.5 * good


def test_fewest_and_most_are_the_ends_of_all() -> None:
    fewest, most = fewest_and_most(SEARCH)
    sums = [sum(counts_chosen(SEARCH, end)) for end in (*range(1, 1001), None)]
    assert sum(fewest) == min(sums)
    assert sum(most) >= 0.95 * max(sums)
    assert sum(fewest) < sum(most)
