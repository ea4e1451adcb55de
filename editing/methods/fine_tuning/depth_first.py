"""Depth-first fine-tuning: each request is trained alone, to convergence, and never revisited (FT-L and FT-M)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import EditResult, Progress, State, TurnSize, Work, silent
from overedit.editing.methods.fine_tuning.tuner import Objective, SiteTuning, Tuner, encode_samples, tuning
from overedit.editing.model.partial_forward.prefix_cache import PrefixOf
from overedit.editing.model.shape import ModelShape
from overedit.editing.requests import EditRequest


class DepthFirstTuning(SiteTuning):
    """Settings of the methods that train each request alone; the defaults are those of the baselines in common use."""

    max_steps: int = Field(default=25, ge=1)
    """The most steps on one request (the baselines in common use)."""
    stop_below: float = Field(default=1e-2, ge=0)
    """A request has converged when its loss is below, in nats (as above)."""

    @property
    def loss_objective(self) -> Objective:
        """Which tokens a request's loss covers, and where they are read; see `encode_samples`."""
        return "answer"

    def work(self, shape: ModelShape, turn: TurnSize) -> Work:
        """All steps of every request, one at a time; each ends earlier where its loss is low."""
        return self.training(shape, turn, passes=self.max_steps, batch=1)

    @property
    def weight_bound(self) -> float | None:
        """How far any weight may move during one request; None for no bound."""
        return None


def fine_tune_depth_first(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: DepthFirstTuning,
    state: State,
    *,
    seed: int = 0,
    progress: Progress = silent,
    prefix_of: PrefixOf | None = None,
) -> EditResult:
    """Train one site on the requests one after the other, each to convergence and with a fresh optimizer.

    Args:
        model: The model to start from; bit-identical on return.
        tokenizer: Its tokenizer.
        requests: This turn's requests, in the order of editing.
        config: Settings.
        state: Not used.
        seed: Not used: nothing is random.
        progress: Called with (requests done, total requests).
        prefix_of: Computes the activations below the site; see `tuning`.

    Returns:
        The trained values of the site's parameters, in their own dtype, and no state.

    Raises:
        ValueError: A request that cannot be tokenised to a trainable sample, or a site the model does not have.
    """
    samples = encode_samples(model, tokenizer, requests, append_eos=config.append_eos, objective=config.loss_objective)
    with tuning(model, samples, config, norm_constraint=config.weight_bound, prefix_of=prefix_of) as tuner:
        log = edit_depth_first(
            tuner, len(samples), max_steps=config.max_steps, stop_below=config.stop_below, progress=progress
        )
        return EditResult(tuner.update(), {}, log)


class DepthFirst(NamedTuple):
    """Losses and convergence of sample-by-sample training."""

    losses: list[list[float]]
    """Loss before each step, by sample; the last one is the loss at which its training stopped."""
    reached: int
    """Samples whose loss fell below the threshold."""


def edit_depth_first(
    tuner: Tuner, num_samples: int, *, max_steps: int, stop_below: float, progress: Progress = silent
) -> dict[str, float | int | str]:
    """Train each sample to convergence, and summarize the training for a turn's log."""
    done = train_depth_first(tuner, num_samples, max_steps=max_steps, stop_below=stop_below, progress=progress)
    return {
        "converged": done.reached,
        "dropped": sum(losses[0] < stop_below for losses in done.losses),
        "steps": sum(map(len, done.losses)),
        "first_loss": sum(losses[0] for losses in done.losses) / num_samples,
        "last_loss": sum(losses[-1] for losses in done.losses) / num_samples,
        "prefix": tuner.prefix.start,
        "prefix_bytes": tuner.prefix.num_bytes,
    }


def train_depth_first(
    tuner: Tuner, num_samples: int, *, max_steps: int, stop_below: float, progress: Progress = silent
) -> DepthFirst:
    """Train each sample to convergence, one after the other, each once and with a fresh optimizer."""
    losses: list[list[float]] = []
    for n in range(num_samples):
        tuner.start()
        losses.append([])
        while len(losses[n]) < max_steps and not (losses[n] and losses[n][-1] < stop_below):
            losses[n].append(tuner.step([n], skip_below=stop_below))
        progress(n + 1, num_samples)
    return DepthFirst(losses, sum(steps[-1] < stop_below for steps in losses))
