from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overedit.editing.metrics import (
    TfIdf,
    cut_by_stop,
    exact_match,
    exact_sequence,
    preferred,
    prompt_key,
    same_text,
    squad_normalize,
    token_accuracy,
)
from tests.support.oracles import is_empty, is_repetitive, ngram_entropy, ngram_repetition, wilson_interval


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The Eiffel Tower!", "eiffel tower"),
        ("  a  New\tYork,  N.Y. ", "new york ny"),
        ("An apple and a pear", "apple and pear"),
        ("theatre", "theatre"),  # an article inside a word stays
        ("Räpina parish", "räpina parish"),
        ("the", ""),
        ("", ""),
    ],
)
def test_squad_normalize(text: str, normalized: str) -> None:
    assert squad_normalize(text) == normalized


@given(st.text())
def test_normalizing_twice_changes_nothing_but_articles_laid_bare(text: str) -> None:
    once = squad_normalize(text)
    assert once == " ".join(once.split())
    assert same_text(text, text)


@pytest.mark.parametrize(
    ("output", "target", "matches"),
    [
        (" the BBC One", "BBC One", True),
        ("BBC One and more", "BBC One", False),
        ("Harry Bernsen Jr", "Harry Bernsen Jr.", True),  # cut by the stop string at the end only
        ("C", "C. J. van Rijsbergen", False),
        ("", "The The", False),  # normalises to nothing, as an empty output does
        ("", "A", False),
        (" the the", "The The", True),
        ("?!", "?!", True),
        ("", "?!", False),
    ],
)
def test_exact_match(output: str, target: str, matches: bool) -> None:
    assert exact_match(output, target) is matches


def test_prompt_key_ignores_only_whitespace() -> None:
    assert prompt_key(" Who  is\nX? ") == prompt_key("Who is X?") != prompt_key("who is X?")


@pytest.mark.parametrize(
    ("target", "cut"),
    [
        ("St. Luke's Hospital", True),
        ("Harry Bernsen Jr.", False),
        ("two\nlines", True),
        ("Paris", False),
        (".NET", True),
    ],
)
def test_cut_by_stop(target: str, cut: bool) -> None:
    assert cut_by_stop(target, (".", "\n")) is cut
    assert not cut_by_stop(target, ())


def test_token_accuracy_and_exact_sequence() -> None:
    assert token_accuracy([5, 6, 7, 9], [5, 6, 7, 8]) == 0.75
    assert token_accuracy([1], [1]) == 1.0
    assert exact_sequence([5, 6], (5, 6))
    assert not exact_sequence([5, 6, 7], [5, 6])
    with pytest.raises(ValueError, match="1 and 2"):
        token_accuracy([1], [1, 2])
    with pytest.raises(ValueError, match="0 and 0"):
        token_accuracy([], [])


def test_preferred_is_strict() -> None:
    assert preferred(1.0, 1.5)
    assert not preferred(1.5, 1.5)
    assert not preferred(float("inf"), 2.0)


def test_empty_and_repeated_outputs() -> None:
    assert is_empty("")
    assert is_empty(" ,.!\n ")
    assert not is_empty(" a ")
    assert ngram_repetition("to be or not to be", 2) == pytest.approx(0.2)  # five bigrams, "to be" twice
    assert ngram_repetition("no no no no", 1) == 0.75
    assert ngram_repetition("one", 2) == 0.0
    with pytest.raises(ValueError, match="n >= 1"):
        ngram_repetition("one", 0)
    assert is_repetitive("!!!!!!!!!!!!")
    assert is_repetitive("Paris of of of of of of")
    assert is_repetitive("ofofofofof")
    assert not is_repetitive("Mississippi river in the United States")
    assert not is_repetitive("1111")  # a possible answer


def test_wilson_interval_on_known_values() -> None:
    low, high = wilson_interval(81, 263)  # Newcombe 1998, table I, method 3
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    low, high = wilson_interval(0, 10)
    assert low == 0.0
    assert high == pytest.approx(3.8416 / (10 + 3.8416), abs=1e-4)  # z^2 / (n + z^2)
    assert wilson_interval(10, 10)[1] == pytest.approx(1.0, abs=1e-12)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="3 of 2"):
        wilson_interval(3, 2)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share(case: tuple[int, int]) -> None:
    low, high = wilson_interval(*case)
    assert 0 <= low <= case[0] / case[1] + 1e-12
    assert case[0] / case[1] - 1e-12 <= high <= 1


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        # bigrams ab ba ab ba: 1 bit; trigrams aba bab aba: 2/3 log2(3/2) + 1/3 log2(3)
        ("a b a b a", (2 / 3 * 1 + 4 / 3 * (2 / 3 * math.log2(3 / 2) + 1 / 3 * math.log2(3))) / 2),
        ("one two, three", (2 / 3 * math.log2(3) + 4 / 3 * 1) / 2),  # the comma is a word: 3 bigrams, 2 trigrams
        ("one\ttwo\nthree", 2 / 3 * 1 / 2),  # 2 bigrams, 1 trigram
        ("the the the the", 0),
        ("A a A", 2 / 3 * 1 / 2),  # case counts
        ("word", 0),
        ("", 0),
    ],
)
def test_ngram_entropy(text: str, bits: float) -> None:
    assert ngram_entropy(text) == pytest.approx(bits)


TEXTS = ("The river Orm runs through Lund.", "Lund is a city; the Orm is a river.", "A city of bridges", "")


def test_weights_and_cosine_are_those_worked_out_by_hand() -> None:
    found = TfIdf.of(["red fox", "red hen"])
    rare = math.log(3 / 2) + 1
    assert found.weights == {"red": 1.0, "fox": rare, "hen": rare}
    # (1, rare, 0) and (1, 0, rare), each of length sqrt(1 + rare^2)
    assert found.similarity("Red FOX!", ["red hen"]) == pytest.approx(1 / (1 + rare**2))
    assert found.similarity("red fox", ["fox", "red"]) == pytest.approx(1)
    assert found.similarity("a blue whale", ["red hen"]) == 0
    assert found.similarity("", ["red hen"]) == 0
    assert found.similarity("red fox", []) is None


def test_it_is_what_scikit_learn_computes() -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    theirs, ours = text.TfidfVectorizer(), TfIdf.of(TEXTS)
    theirs.fit(TEXTS)
    for one in (*TEXTS, "the the river of Österlen", "Orm-like 12 rivers"):
        vectors = theirs.transform([one, " ".join(TEXTS[:2])])
        expected = float((vectors[0] @ vectors[1].T).toarray()[0, 0])
        assert ours.similarity(one, TEXTS[:2]) == pytest.approx(expected, abs=1e-12)
