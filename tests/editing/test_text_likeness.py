from __future__ import annotations

import math

import pytest

from overedit.editing.text_likeness import TfIdf

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
