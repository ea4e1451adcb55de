"""The pocket world: a generated world to edit, with a small model that really knows it.

People, places and relations with several phrasings each, general skills beside them, and the shipped model that
was trained on them by `flows/pocket_world.py`; so that edits, generalization, locality, portability and general
ability can be measured on two cores and without a network.
"""

from __future__ import annotations

from pathlib import Path

from overedit.tasks.pocket_world.corpus import perplexity_texts, training_texts
from overedit.tasks.pocket_world.lm_eval_items import chance_levels, write_lm_eval_tasks
from overedit.tasks.pocket_world.world import World, default_world

__all__ = [
    "World",
    "chance_levels",
    "default_world",
    "model_folder",
    "perplexity_texts",
    "training_texts",
    "write_lm_eval_tasks",
]


def model_folder() -> Path:
    """The shipped model: an ordinary Hugging Face folder, with the `recipe.json` that it was made by."""
    return Path(__file__).parent / "assets" / "model"
