"""Settings, and their work, that methods share which solve once per turn from keys and gradients at the answers.

Shapes: R rows, I inputs and O outputs of a projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Self

import torch
from pydantic import Field

from overedit.editing.methods.base import MethodConfig, Range, TurnSize, Work
from overedit.editing.model.shape import ModelShape, SiteShape


class GradientEdit(MethodConfig):
    """Settings that UltraEdit and StableEdit share."""

    if TYPE_CHECKING:  # field of the subclass, which names its reference's commit
        compat: str

    sites: tuple[str, ...] = Field(min_length=1)
    """The projections to edit, as `<layer>.<part>`, e.g. `11.gate_proj`."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """Scale of the targets (published settings)."""
    loss_batch_size: int = Field(default=10, ge=1)
    """Requests over whose answer tokens the loss is averaged; sets the gradients' scale (published settings)."""
    ridge: float = Field(gt=0)
    """Added to the diagonal of the keys' Gram matrix."""
    order: Literal["length", "given"] = "length"
    """How a turn's requests are cut into micro-batches: longest first (published implementation), or as given."""
    append_eos: bool = False
    """End each answer with the end-of-sequence token. The paper does not; needed where free generation is scored, and
    done for all methods alike by arXiv 2509.22072, appendix A.1.1."""
    max_tokens_per_pass: int = Field(default=8192, ge=1)
    """Tokens per forward pass: bounds memory, without effect on the result."""
    lane_tokens: int = Field(default=96, ge=1)
    """Sequences are packed into rows of about this many tokens, without effect on the result: longer rows leave less
    padding and make attention slower."""

    @property
    def join(self) -> Literal["text", "ids"]:
        """How prompt and answer are joined, see `encode_requests`; the published implementations join token ids."""
        return "text" if self.compat == "none" else "ids"

    @property
    def epsilon(self) -> float:
        """Added to standard deviations: the float32 machine epsilon in the published implementations, else nothing."""
        return 0.0 if self.compat == "none" else torch.finfo(torch.float32).eps

    def at_site(self, site: str) -> Self:
        """The same settings with one projection to edit."""
        self.check_projection(site)
        return self.model_copy(update={"sites": (site,)})

    def check_projection(self, site: str) -> None:
        """Raise ValueError for a site that is not a single projection."""
        if not site.endswith("_proj"):
            raise ValueError(
                f"sites: {self.method} edits single projections, and {site!r} is not one; choose a part like down_proj"
            )

    def work(self, shape: ModelShape, turn: TurnSize) -> Work:
        """One pass forward and back to the lowest site, and one solve for each site.

        For R rows, I inputs and O outputs: R min(R, I) (I + O) products and min(R, I)^3 / 3 of the decomposition, in
        float64. Bytes: the rows of all sites and their factors in float32; of one site twice in float64, with the
        system, and its change and sum in float32; the moments, two rows of float64 by shape of a site.
        """
        sites = self.projections(shape)
        rows, layers = turn.targets, shape.num_layers - shape.first_layer(self.sites)
        passes = shape.forward(turn.tokens) + shape.forward(turn.tokens, layers=layers) + 2 * shape.head(turn.targets)
        solves = sum(
            4 * rows * min(rows, s.inputs) * (s.inputs + s.outputs) + min(rows, s.inputs) ** 3 / 1.5 for s in sites
        )
        together = min(turn.tokens, self.max_tokens_per_pass)
        read = together / turn.tokens * turn.targets
        widest = max(sites, key=lambda s: s.inputs + s.outputs)
        solving = 16 * rows * (widest.inputs + widest.outputs) + 16 * min(rows, widest.inputs) ** 2
        state = 16 * sum(i + o for i, o in {(s.inputs, s.outputs) for s in sites})
        tracing = shape.kept_bytes(together, layers=layers) + shape.logits_bytes(read)
        kept = 8 * rows * sum(s.inputs + s.outputs for s in sites)
        return Work(
            operations=passes + solves,
            num_bytes=kept + state + max(tracing, solving, 8 * shape.largest(self.sites)),
            state_bytes=state,
        )

    def projections(self, shape: ModelShape) -> list[SiteShape]:
        """The shapes of the edited projections."""
        return [shape.projections[site] for site in self.sites]


RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "learning_rate": Range(low=1e-7, high=1e-1, log=True),
        "ridge": Range(low=1e-1, high=1e2, log=True),
    }
)
"""Setting -> the values among which a search chooses, for models of any size."""
