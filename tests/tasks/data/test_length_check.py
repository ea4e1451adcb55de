"""Requests that do not fit into a model's context."""

from __future__ import annotations

import pytest

from overedit.editing.requests import EditRequest, Probe
from overedit.tasks.data.length_check import check_lengths


class WordTokenizer:
    def __call__(self, texts: list[str]) -> dict[str, list[list[int]]]:
        return {"input_ids": [[len(word) for word in text.split()] for text in texts]}


def test_check_lengths_names_the_case() -> None:
    short = EditRequest(case_id="s", prompt="one two three", target_new="four", rephrase_prompts=("one",))
    long = EditRequest(case_id="l", prompt="one", target_new="two", locality=(Probe(prompt="1 2 3 4", answer="5 6"),))
    check_lengths([], WordTokenizer(), 1)
    check_lengths([short, long], WordTokenizer(), 7)
    with pytest.raises(ValueError, match=r"case 'l': its locality prompt with the answer has 6 tokens, .*context of 6"):
        check_lengths([short, long], WordTokenizer(), 6)
    with pytest.raises(ValueError, match="case 's': its edit prompt with the answer has 4 tokens"):
        check_lengths([short], WordTokenizer(), 4)


def test_check_lengths_of_what_is_not_asked_is_of_the_edit_alone() -> None:
    probed = EditRequest(case_id="p", prompt="a", target_new="b", target_true="c d e", rephrase_prompts=("1 2 3",))
    short = EditRequest(case_id="s", prompt="a", target_new="b")
    check_lengths([short, short, probed, short], WordTokenizer(), 3, asked={1, 2, 4})
    with pytest.raises(ValueError, match="'p'"):
        check_lengths([short, short, probed, short], WordTokenizer(), 3, asked={3})
    with pytest.raises(ValueError, match="case 'l': its edit prompt with the answer has 4 tokens"):
        long = EditRequest(case_id="l", prompt="a", target_new="b c d")
        check_lengths([*[probed] * 5000, long], WordTokenizer(), 4, asked=())
