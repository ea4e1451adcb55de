"""LocFT-BF: localized fine-tuning, breadth first.

"Fine-tuning Done Right in Model Editing" (ICLR 2026, arXiv 2509.22072). The paper attributes the failure of
fine-tuning at editing to its depth-first order, each sample trained once to convergence. LocFT-BF trains epochs over
the whole edit set (section 2), in mini-batches, at one site found by search (section 3). A step on a mini-batch b is

    W <- Adam(W, grad 1/|b| sum_{i in b} 1/|y_i| sum_t -log p_W(y_it | x_i, y_i<t))

with y_i the target, its leading space and its end-of-sequence token included. A batch whose loss is below a threshold
takes no step, and an epoch whose mean loss is below it is the last.

Checked against: batch order, step losses, epoch means and weight change of the published implementation (golden data).

Differences from the reference: no padding token is added and the embeddings keep their size (the reference's extra
row adds one class to the softmax); padding is on the right (a shift of positions, without effect on rotary
embeddings); the order of each epoch comes from a recorded seed; a model that is not float32 trains a float32 copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import EditResult, Method, Progress, Range, State, TurnSize, Work, silent
from overedit.editing.methods.fine_tuning.breadth_first import Epochs, edit_breadth_first
from overedit.editing.methods.fine_tuning.tuner import SiteTuning, encode_samples, tuning
from overedit.editing.model.partial_forward.prefix_cache import PrefixOf
from overedit.editing.model.shape import ModelShape
from overedit.editing.requests import EditRequest


class LocftBf(SiteTuning):
    """Settings of LocFT-BF; the defaults are the published ones for Qwen2.5-7B-Instruct."""

    method: Literal["locft_bf"] = "locft_bf"
    """The method's name."""
    batch_size: int = Field(default=100, ge=1)
    """Requests of a step (published settings); the last batch of an epoch may be smaller."""
    epochs: int = Field(default=25, ge=1)
    """The most passes over all requests (published settings)."""
    loss_average: Literal["sample", "token"] = "sample"
    """`sample`: mean per request, then over requests (the paper's). `token`: mean over the batch's target tokens, as
    in the LlamaFactory port (arXiv 2509.22072, table 8)."""
    skip_batch_below: float = Field(default=1e-2, ge=0)
    """A batch with a loss below takes no step, in nats (published implementation)."""
    stop_epoch_below: float = Field(default=1e-2, ge=0)
    """Training ends after an epoch with a mean loss below, in nats (published implementation)."""
    schedule: Literal["restart", "continue"] = "restart"
    """At each edit count all edits so far are trained: from the base model, or from the previous checkpoint's weights
    (section 2.5 allows either). The trajectory runner acts on it; the method trains from the weights it is given."""

    @property
    def cumulative(self) -> bool:
        """A turn trains all edits so far."""
        return True

    @property
    def restarts(self) -> bool:
        """Whether each edit count is trained from the base model."""
        return self.schedule == "restart"

    @property
    def order(self) -> Epochs:
        """How the epochs are trained."""
        return Epochs(self.batch_size, self.epochs, self.skip_batch_below, self.stop_epoch_below, self.loss_average)

    def work(self, shape: ModelShape, turn: TurnSize) -> Work:
        """All epochs; training ends earlier where the loss is low."""
        return self.training(shape, turn, passes=self.epochs, batch=self.batch_size)


PRESETS: Mapping[str, LocftBf] = MappingProxyType(
    {  # arXiv 2509.22072, table 2 (sites) and published hyper-parameters (rates)
        "meta-llama/Meta-Llama-3-8B-Instruct": LocftBf(site="22.down_proj", learning_rate=5e-4),
        "mistralai/Mistral-7B-v0.1": LocftBf(site="23.layer", learning_rate=5e-5),
        "Qwen/Qwen2.5-7B-Instruct": LocftBf(site="6.down_proj", learning_rate=5e-4),
        # chosen by a search on edits that no benchmark of the pocket world has: tasks/pocket_world/presets
        "pocket": LocftBf(site="4.down_proj", learning_rate=1.094e-2, batch_size=10, epochs=9),
    }
)
"""Model id -> published settings."""


def locft_bf(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: LocftBf,
    state: State,
    *,
    seed: int = 0,
    progress: Progress = silent,
    prefix_of: PrefixOf | None = None,
) -> EditResult:
    """Train one site on all requests, in epochs of shuffled mini-batches.

    Args:
        model: The model to start from; bit-identical on return.
        tokenizer: Its tokenizer.
        requests: The whole edit set.
        config: Settings.
        state: Not used: the optimizer starts afresh in every call.
        seed: Seed of the order of the requests in each epoch.
        progress: Called with (steps done, total steps).
        prefix_of: Computes the activations below the site; see `tuning`.

    Returns:
        The trained values of the site's parameters, in their own dtype, and no state.

    Raises:
        ValueError: A request that cannot be tokenised to a trainable sample, or a site the model does not have.
    """
    samples = encode_samples(model, tokenizer, requests, append_eos=config.append_eos)
    with tuning(model, samples, config, prefix_of=prefix_of) as tuner:
        log = edit_breadth_first(
            tuner, len(samples), config.order, restarts=config.restarts, seed=seed, progress=progress
        )
        return EditResult(tuner.update(), {}, log)


RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "learning_rate": Range(low=1e-5, high=1e-1, log=True),
        "batch_size": Range(low=10, high=200, log=True),
        "epochs": Range(low=5, high=50),
    }
)
"""Setting -> the values among which a search chooses, for models of any size."""

METHOD = Method(
    config=LocftBf,
    function=locft_bf,
    label="LocFT-BF",
    paper="Fine-tuning Done Right in Model Editing, arXiv 2509.22072",
    presets=PRESETS,
    ranges=RANGES,
)
