"""The recipe of the shipped pocket model: generate the world, train, measure, save.

`python -m overedit.flows.pocket_world` makes the shipped folder again.
"""

from __future__ import annotations

import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prefect import flow

from overedit.tasks.pocket_model.task import measure_capability, measure_knowledge, train_model
from overedit.tasks.pocket_model.training import TrainingConfig
from overedit.tasks.pocket_world.lm_eval_items import chance_levels
from overedit.tasks.pocket_world.model import model_folder
from overedit.tasks.pocket_world.world import World, default_world

RECIPE = "recipe.json"
PACKAGES = ("torch", "transformers", "tokenizers", "lm-eval")


@flow(name="train the pocket world's model")
def train_pocket_world(
    world: World | None = None, config: TrainingConfig | None = None, folder: Path | None = None
) -> dict[str, float]:
    """Train the pocket model on a world and write it, with its recipe and what was measured, to a folder.

    Args:
        world: The world to learn; the default one if left out.
        config: The training recipe; the shipped model's if left out.
        folder: Where to; the shipped model's place if left out.

    Returns:
        What was measured.
    """
    world, config, folder = world or default_world(), config or TrainingConfig(), folder or model_folder()
    started = time.monotonic()
    measured = train_model(world, config, folder)
    recipe = {
        "world": world.model_dump(),
        "training": config.model_dump(),
        "seconds": round(time.monotonic() - started),
        "versions": {name: version(name) for name in PACKAGES},
    }
    return _write_recipe(folder, recipe, measured, measure_capability(folder))


@flow(name="measure the pocket world's model")
def measure_pocket_world(folder: Path | None = None) -> dict[str, float]:
    """Measure a trained folder again, and write the figures into its recipe in place of the old ones."""
    folder = folder or model_folder()
    recipe = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
    measured = recipe["measured"] | measure_knowledge(World(**recipe["world"]), folder)
    return _write_recipe(folder, recipe, measured, measure_capability(folder))


def _write_recipe(
    folder: Path, recipe: dict[str, Any], measured: dict[str, float], capability: dict[str, float]
) -> dict[str, float]:
    figures = {"measured": measured, "lm_eval": capability, "lm_eval_chance": chance_levels()}
    (folder / RECIPE).write_text(json.dumps(recipe | figures, indent=2) + "\n", encoding="utf-8")
    return measured | capability


if __name__ == "__main__":
    train_pocket_world()
