"""CrispEdit: fine-tuning that leaves alone the directions in which the loss on ordinary text is curved.

CrispEdit (ICML 2026, arXiv 2602.15823). A and B are the K-FAC factors of that loss at the unedited model (`curvature`).
Of the directions U_B[:, i] U_A[:, j]^T the most curved that hold the share `energy` of the curvature are frozen
(`projection`), M is 1 for the others, and LocFT-BF's loop takes the steps

    W <- Adam(W, P(grad))        P(G) = U_B ((U_B^T G U_A) * M) U_A^T

After a turn of n tokens, whose texts have the factors A_e and B_e on the edited model, A <- (N A + n A_e) / (N + n), N
being the tokens before, and likewise B. The next turn takes M anew, and carries on Adam's moments, the first projected.

Checked against: factors, masks, projected gradients and moments, and changes of the weights in one turn and over two
turns, of the published formulas (golden data, made from a transcription and not from the published files).

Differences from the reference: each epoch has an order of its own; `project: step` projects what Adam makes of the
gradient, which otherwise leaves the free directions; padding is known by its position, not by its token, so no token of
a text is left out; factors are not taken anew when the weights have changed much; Conv1D as well as Linear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from overedit.editing.methods.base import (
    CovarianceOptions,
    EditResult,
    Method,
    Progress,
    Range,
    State,
    TurnSize,
    Work,
    silent,
)
from overedit.editing.methods.fine_tuning.breadth_first import Epochs, edit_breadth_first
from overedit.editing.methods.fine_tuning.projection import FreeDirections, ProjectedSteps, projection_work
from overedit.editing.methods.fine_tuning.tuner import Tuning, encode_samples, tuning
from overedit.editing.methods.locate_then_edit.covariance import SecondMoment
from overedit.editing.methods.locate_then_edit.curvature import (
    curvature,
    earlier_edits,
    factor_names,
    merged,
    reading_operations,
    with_edits,
)
from overedit.editing.model.anatomy import Anatomy, stores_in_out
from overedit.editing.model.shape import ModelShape
from overedit.editing.model.weights import applied
from overedit.editing.requests import EditRequest


class CrispEdit(Tuning):
    """Settings of CrispEdit; the defaults are the published ones."""

    takes_prefix: ClassVar[bool] = False

    method: Literal["crispedit"] = "crispedit"
    """The method's name."""
    sites: tuple[str, ...] = Field(min_length=1)
    """The projections that are trained together, as `<layer>.<part>`."""
    energy: float = Field(ge=0, le=1)
    """The share of the curvature whose directions are frozen. The published files name 0.8, 0.99 and 0.5 to 0.95, so
    there is no default."""
    project: Literal["gradient", "step"] = "gradient"
    """What is projected: the gradient before Adam (the paper), or Adam's step."""
    batch_size: int = Field(default=32, ge=1)
    """Requests of a step (published settings); the last batch of an epoch may be smaller."""
    epochs: int = Field(default=25, ge=1)
    """The most passes over a turn's requests (published settings)."""
    loss_average: Literal["sample", "token"] = "token"
    """`token`: mean over a batch's target tokens (published implementation). `sample`: as the paper of LocFT-BF."""
    skip_batch_below: float = Field(default=1e-2, ge=0)
    """A batch with a loss below takes no step, in nats (published implementation)."""
    stop_epoch_below: float = Field(default=1e-2, ge=0)
    """Training ends after an epoch with a mean loss below, in nats (as LocFT-BF)."""
    covariance: CovarianceOptions = CovarianceOptions(corpus="wikimedia/wikipedia:20231101.en", num_samples=1000)
    """The text from which A and B are computed: 100 to 1,000 texts of 512 tokens (published settings)."""

    @field_validator("sites")
    @classmethod
    def _are_projections(cls, sites: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [site for site in sites if not site.endswith("_proj") or sites.count(site) > 1]
        if wrong:
            raise ValueError(
                f"{wrong[0]!r} is not accepted: sites are single projections, each once, e.g. 19.down_proj"
            )
        return sites

    def at_site(self, site: str) -> Self:
        """The same settings with one projection to train."""
        return self.model_copy(update={"sites": self._are_projections((site,))})

    @property
    def covariance_options(self) -> CovarianceOptions:
        """The text of A and B."""
        return self.covariance

    @property
    def covariances(self) -> tuple[str, ...]:
        """A and B of each site."""
        return tuple(name for site in self.sites for name in factor_names(site))

    @property
    def order(self) -> Epochs:
        """How the epochs are trained."""
        return Epochs(self.batch_size, self.epochs, self.skip_batch_below, self.stop_epoch_below, self.loss_average)

    def work(self, shape: ModelShape, turn: TurnSize) -> Work:
        """LocFT-BF's training, `projection_work`, and the factors of the edits' texts."""
        sites = [shape.projections[site] for site in self.sites]
        training = self.training(shape, turn, passes=self.epochs, batch=self.batch_size)
        steps = self.order.num_steps(turn.num_edits)
        projecting = projection_work(sites, steps=steps, projected=self.project)
        together, above = min(turn.tokens, self.max_tokens_per_pass), shape.num_layers - shape.first_layer(self.sites)
        reading = shape.kept_bytes(together, layers=above) + shape.logits_bytes(together)
        read = reading_operations(shape, self.covariances, turn.tokens)
        return Work(
            operations=training.operations + projecting.operations + read,
            num_bytes=projecting.num_bytes + max(training.num_bytes, reading),
            state_bytes=projecting.state_bytes,
        )


PRESETS: Mapping[str, CrispEdit] = MappingProxyType(
    {  # arXiv 2602.15823, published settings; `energy` is left open
        "meta-llama/Meta-Llama-3-8B-Instruct": CrispEdit.model_construct(
            sites=tuple(f"{layer}.down_proj" for layer in range(19, 24))
        ),
    }
)
"""Model id -> published settings."""


def crispedit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    config: CrispEdit,
    state: State,
    *,
    covariance: Mapping[str, SecondMoment],
    seed: int = 0,
    progress: Progress = silent,
) -> EditResult:
    """Train the sites on a turn's requests, in epochs of shuffled mini-batches, with projected steps.

    Args:
        model: The model to start from; bit-identical on return.
        tokenizer: Its tokenizer.
        requests: The turn's requests, at least one.
        config: Settings.
        state: A and B of all earlier edits, their tokens, and Adam's moments.
        covariance: A and B of the pristine model over the corpus, by `factor_names`.
        seed: Seed of the order of the requests in each epoch.
        progress: Called with (steps done, total steps).

    Returns:
        The trained values of each site's weight, in its own dtype; the state; a log, with each site's `frozen` share of
        the directions and mean `leak`.

    Raises:
        ValueError: A request that cannot be tokenised to a trainable sample, or a site the model does not have.
    """
    samples = encode_samples(model, tokenizer, requests, append_eos=config.append_eos)
    anatomy, free = Anatomy.of(model), {}
    for site in config.sites:
        a_II, b_OO = (merged(covariance[name], earlier_edits(state, name)).matrix_II for name in factor_names(site))
        in_out = stores_in_out(model.get_submodule(anatomy.site_module(site)))
        free[site] = FreeDirections.of(a_II, b_OO, config.energy, in_out=in_out)
    with tuning(model, samples, config) as tuner:
        values = dict(zip(config.sites, tuner.values.values(), strict=True))
        steps = ProjectedSteps(tuner.optimizer, values, free, projected=config.project, state=state)
        log = edit_breadth_first(tuner, len(samples), config.order, restarts=True, seed=seed, progress=progress)
        update, moments = tuner.update(), steps.moments()
    with applied(model, update):
        texts = [[sample.ids for sample in samples]]
        edits = curvature(model, texts, config.sites, max_tokens_per_pass=config.max_tokens_per_pass, check=False)
    return EditResult(update, moments | with_edits(state, edits), log | steps.log())


RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "learning_rate": Range(low=1e-5, high=1e-1, log=True),
        "energy": Range(low=0.5, high=0.99),
        "batch_size": Range(low=10, high=200, log=True),
        "epochs": Range(low=5, high=50),
    }
)
"""Setting -> the values among which a search chooses, for models of any size."""

METHOD = Method(
    config=CrispEdit,
    function=crispedit,
    label="CrispEdit",
    paper="CrispEdit, ICML 2026, arXiv 2602.15823",
    presets=PRESETS,
    ranges=RANGES,
)
