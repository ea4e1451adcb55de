"""The shipped worlds by name: their edits, texts and lm-eval tasks, which a configuration calls `pocket`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from overedit.tasks.pocket_world.corpus import held_out_texts, training_texts
from overedit.tasks.pocket_world.lm_eval_items import chance_levels, write_lm_eval_tasks
from overedit.tasks.pocket_world.world import World, default_world


class Texts:
    """Texts that are made when they are asked for the first time: it takes a second, and each checkpoint asks.

    Args:
        make: The first n texts; None takes all, or a default number.
    """

    def __init__(self, make: Callable[[int | None], Sequence[str]]) -> None:
        self._make = make
        self._made: dict[int | None, tuple[str, ...]] = {}

    def __call__(self, num: int | None) -> Sequence[str]:
        """The first `num` texts."""
        if num not in self._made:
            self._made[num] = tuple(self._make(num))
        return self._made[num]


class ShippedWorld(NamedTuple):
    """The parts of a generated world that a configuration can name."""

    title: str
    """Its name in messages."""
    world: Callable[[], World]
    """Makes the world, which gives the edits."""
    training_texts: Texts
    """The first n texts that a model is trained on; None gives all."""
    held_out_texts: Texts
    """The first n texts on which perplexity is measured; None gives the default number."""
    write_lm_eval_tasks: Callable[[Path], list[str]]
    """Writes the lm-eval tasks into a folder and returns their names."""
    chance_levels: Callable[[], dict[str, float]]
    """Task -> the score of guessing."""


WORLDS = MappingProxyType(
    {
        "pocket": ShippedWorld(
            title="the pocket world",
            world=default_world,
            training_texts=Texts(training_texts),
            held_out_texts=Texts(held_out_texts),
            write_lm_eval_tasks=write_lm_eval_tasks,
            chance_levels=chance_levels,
        )
    }
)
"""Name, of a dataset, a corpus or a folder of tasks -> its world."""
