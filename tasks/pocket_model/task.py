"""Training and measuring the pocket model, as Prefect tasks."""

from __future__ import annotations

import time
from pathlib import Path

from prefect import get_run_logger, task

from overedit.tasks.pocket_model.knowledge import lm_eval_scores
from overedit.tasks.pocket_model.training import TrainingConfig, measure_folder, train
from overedit.tasks.pocket_world.world import World

SECONDS_BETWEEN_LINES = 30.0


@task(name="train the pocket model")
def train_model(world: World, config: TrainingConfig, folder: Path) -> dict[str, float]:
    """Train and save; every half minute a log line with the rate and the time left."""
    logger, started, told = get_run_logger(), time.monotonic(), time.monotonic()

    def progress(done: int, total: int, loss: float) -> None:
        nonlocal told
        if time.monotonic() - told > SECONDS_BETWEEN_LINES or done == total:
            told = time.monotonic()
            rate = done / (told - started)
            logger.info(
                "step %d of %d, loss %.3f, %.1f a second, %.0f s left", done, total, loss, rate, (total - done) / rate
            )

    return train(world, config, folder, progress)


@task(name="measure what the pocket model knows")
def measure_knowledge(world: World, folder: Path) -> dict[str, float]:
    """Exact match by kind of statement, and perplexity."""
    return measure_folder(world, folder)


@task(name="measure general ability with lm-eval")
def measure_capability(folder: Path) -> dict[str, float]:
    """Scores of the four tasks."""
    return lm_eval_scores(folder)
