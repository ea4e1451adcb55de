"""Breadth-first fine-tuning: epochs of shuffled mini-batches over all requests (LocFT-BF, CrispEdit, `peft`)."""

from __future__ import annotations

import json
import random
from itertools import chain
from typing import Literal, NamedTuple

from overedit.editing.methods.base import Progress, silent
from overedit.editing.methods.fine_tuning.tuner import Tuner


class Epochs(NamedTuple):
    """How the epochs are trained."""

    batch_size: int
    """Requests of a step; the last batch of an epoch may be smaller."""
    most: int
    """The most passes over all requests."""
    skip_batch_below: float
    """A batch with a loss below takes no step, in nats."""
    stop_below: float
    """Training ends after an epoch with a mean loss below, in nats."""
    average: Literal["sample", "token"] = "sample"
    """See `Tuner.step`."""

    def num_steps(self, num_samples: int) -> int:
        """The steps of all epochs."""
        return self.most * -(-num_samples // self.batch_size)


class BreadthFirst(NamedTuple):
    """Record of a training run, by epoch and step."""

    batches: list[list[list[int]]]
    """Indices of the requests in each step of each epoch."""
    losses: list[list[float]]
    """Loss of each step before its update, in nats."""
    epoch_means: list[float]
    """Mean loss of each epoch, weighted by batch size."""


def edit_breadth_first(
    tuner: Tuner, num_samples: int, epochs: Epochs, *, restarts: bool, seed: int, progress: Progress = silent
) -> dict[str, float | int | str]:
    """Train in epochs, and summarize the training for a turn's log.

    Args:
        tuner: Takes the steps.
        num_samples: Requests.
        epochs: How they are trained.
        restarts: Whether no earlier turn has trained these requests, so that one that took no step was dropped.
        seed: Seed of the order.
        progress: Called with (steps done, total steps).
    """
    done = train_breadth_first(tuner, num_samples, epochs, seed=seed, progress=progress)
    return {
        "epochs": len(done.losses),
        "steps": sum(len(losses) for losses in done.losses),
        "skipped_steps": sum(loss < epochs.skip_batch_below for losses in done.losses for loss in losses),
        "dropped": num_samples - len(trained(done, epochs)) if restarts else 0,
        "first_epoch_loss": done.epoch_means[0],
        "last_epoch_loss": done.epoch_means[-1],
        "epoch_losses": json.dumps([round(mean, 6) for mean in done.epoch_means]),
        "seed": seed,
        "prefix": tuner.prefix.start,
        "prefix_bytes": tuner.prefix.num_bytes,
    }


def train_breadth_first(
    tuner: Tuner, num_samples: int, epochs: Epochs, *, seed: int, progress: Progress = silent
) -> BreadthFirst:
    """Train in epochs; the order is reshuffled in place before each, by Python's generator with `seed`."""
    shuffle = random.Random(seed).shuffle
    order = list(range(num_samples))
    done = BreadthFirst([], [], [])
    total = epochs.num_steps(num_samples)
    for epoch in range(epochs.most):
        shuffle(order)
        batches = [order[i : i + epochs.batch_size] for i in range(0, num_samples, epochs.batch_size)]
        done.batches.append(batches)
        done.losses.append([])
        for batch in batches:
            loss = tuner.step(batch, average=epochs.average, skip_below=epochs.skip_batch_below)
            done.losses[epoch].append(loss)
            progress(sum(map(len, done.losses)), total)
        weighted = sum(loss * len(batch) for loss, batch in zip(done.losses[epoch], batches, strict=True))
        done.epoch_means.append(weighted / num_samples)
        if done.epoch_means[-1] < epochs.stop_below:
            break
    progress(total, total)
    return done


def trained(done: BreadthFirst, epochs: Epochs) -> set[int]:
    """The requests that were in a step which was not skipped."""
    steps = zip(chain.from_iterable(done.batches), chain.from_iterable(done.losses), strict=True)
    return {n for batch, loss in steps if not loss < epochs.skip_batch_below for n in batch}
