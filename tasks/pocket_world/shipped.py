"""The shipped worlds by name: their edits, texts and lm-eval tasks, which a configuration calls `pocket`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from overedit.tasks.pocket_world.corpus import held_out_texts, training_texts
from overedit.tasks.pocket_world.lm_eval_items import chance_levels, write_lm_eval_tasks
from overedit.tasks.pocket_world.world import World, default_world


class ShippedWorld(NamedTuple):
    """The parts of a generated world that a configuration can name."""

    title: str
    """Its name in messages."""
    world: Callable[[], World]
    """Makes the world, which gives the edits."""
    training_texts: Callable[[int | None], list[str]]
    """The first n texts that a model is trained on; None gives all."""
    held_out_texts: Callable[[int | None], list[str]]
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
            training_texts=training_texts,
            held_out_texts=held_out_texts,
            write_lm_eval_tasks=write_lm_eval_tasks,
            chance_levels=chance_levels,
        )
    }
)
"""Name, of a dataset, a corpus or a folder of tasks -> its world."""
