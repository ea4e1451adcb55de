"""General skills: arithmetic, subject-verb agreement and copying.

Each skill has held-out items that training never shows, and only those are measured: one in eight combinations of
noun, verb and place; one in eight lists of words; and every sum in one of its three phrasings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from overedit.tasks.pocket_world.draws import draw, pick
from overedit.tasks.pocket_world.relations import words
from overedit.tasks.pocket_world.world import Statement

Item = TypeVar("Item")

LARGEST_OPERAND = 15
NOUNS = words(
    "gardener farmer painter doctor student neighbour king queen pilot baker poet rider hunter sister brother guest"
)
PLACES = words("boat house tree bridge garden river tower gate lamp wall chair window")
BETWEEN = words("near behind beside before")
VERBS = words("sing laugh sleep work wait walk smile read write dream listen whisper")
COPY_WORDS = words(
    "apple river stone cloud candle ladder mirror basket pepper button window silver copper velvet "
    "marble needle pencil rocket saddle thread walnut yellow purple meadow forest island lantern garden"
)
COPY_PHRASINGS = ("Repeat the words {row}:", "Copy this list: {row}. The list again:")
SUM_PHRASINGS = ("{sum} is", "{sum} makes", "Question: What is {sum}? Answer:")


class MinimalPair(NamedTuple):
    """Two sentences that differ only in the number of the verb."""

    good: Statement
    bad: Statement


def _is_held_out(*key: int | str) -> bool:
    return draw(8, "skill", *key) == 0


def _sum(seed: int, index: int, held_out: bool) -> Statement | None:
    key = (seed, "arithmetic", index)
    one, other = draw(LARGEST_OPERAND + 1, *key, "one"), draw(LARGEST_OPERAND + 1, *key, "other")
    large, small = max(one, other), min(one, other)
    plus = draw(2, *key, "plus") == 0
    text, answer = (f"{one} plus {other}", one + other) if plus else (f"{large} minus {small}", large - small)
    phrasing = pick(SUM_PHRASINGS, *key, "phrasing")
    if (phrasing == pick(SUM_PHRASINGS, "held out", text)) != held_out:
        return None
    return Statement(prompt=phrasing.format(sum=text), answer=str(answer))


def _pair(seed: int, index: int, held_out: bool) -> MinimalPair | None:
    key = (seed, "agreement", index)
    noun, verb = pick(NOUNS, *key, "noun"), pick(VERBS, *key, "verb")
    place, between = pick(PLACES, *key, "place"), pick(BETWEEN, *key, "between")
    many, many_places = draw(2, *key, "many") == 0, draw(2, *key, "many places") == 0
    if _is_held_out("agreement", noun, verb, place) != held_out:
        return None
    prompt = f"The {noun}{'s' * many} {between} the {place}{'s' * many_places}"
    singular, plural = f"{verb}s", verb
    good, bad = (plural, singular) if many else (singular, plural)
    return MinimalPair(Statement(prompt=prompt, answer=good), Statement(prompt=prompt, answer=bad))


def _copy(seed: int, index: int, held_out: bool) -> Statement | None:
    key = (seed, "copy", index)
    row = ", ".join(pick(COPY_WORDS, *key, i) for i in range(1 + draw(4, *key, "length")))
    if _is_held_out("copy", row) != held_out:
        return None
    return Statement(prompt=pick(COPY_PHRASINGS, *key, "phrasing").format(row=row), answer=row)


def _items(make: Callable[[int, int, bool], Item | None], num: int, seed: int, held_out: bool) -> list[Item]:
    """The first `num` items of a skill's seeded stream; held-out items are distinct."""
    items: list[Item] = []
    for index in range(1000 * num):
        item = make(seed, index, held_out)
        if item is not None and not (held_out and item in items):
            items.append(item)
        if len(items) == num:
            break
    if len(items) < num:
        raise ValueError(f"num: this skill has no {num} different held-out items")
    return items


def arithmetic(num: int, *, seed: int, held_out: bool = False) -> list[Statement]:
    """Sums and differences of numbers up to 15, in three phrasings."""
    return _items(_sum, num, seed, held_out)


def agreement(num: int, *, seed: int, held_out: bool = False) -> list[MinimalPair]:
    """Sentences whose verb agrees with the subject across another noun, each with an ungrammatical version."""
    return _items(_pair, num, seed, held_out)


def copying(num: int, *, seed: int, held_out: bool = False) -> list[Statement]:
    """Lists of one to four words to be repeated."""
    return _items(_copy, num, seed, held_out)
