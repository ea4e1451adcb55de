"""Settings of the optimization of values, and of the anchor of their norms."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from overedit.editing.methods.base import Range


class NormAnchor(BaseModel):
    """All values of a trajectory get the same norm, and those that would need far more are given up.

    "Norm-Anchor Scaling" (NAS, arXiv 2602.02543). A value is here what the last edited layer's MLP puts out at the
    subject, with the shift: v* = v0 + delta. With m the anchor, v* becomes m v* / |v*|; where |v*| > limit m it is not
    used, and the edit is not made.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    kind: Literal["nas"] = "nas"
    """The anchor's name."""
    norm: float | None = Field(default=None, gt=0)
    """m. None: the mean |v*| of the trajectory's first batch, without the largest. The paper takes the mean over 1,000
    edits of CounterFact on the pristine model; with few edits in a turn, give the norm that a larger one has logged."""
    limit: float = Field(default=2.0, ge=1)
    """The multiple of m above which a value is given up (published settings)."""
    largest: float = Field(default=0.05, ge=0, lt=1)
    """The share of the largest norms that the mean leaves out (published settings)."""


AnyAnchor = Annotated[NormAnchor, BeforeValidator(lambda given: {"kind": given} if isinstance(given, str) else given)]
"""An anchor; a configuration may write its name alone: `anchor: nas`."""


class ValueOptions(BaseModel):
    """Settings of the optimization; the defaults are MEMIT's for GPT-J (arXiv 2210.07229, published settings)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    num_steps: int = Field(default=25, ge=1)
    """Evaluations of the loss; the last one is not followed by an update."""
    learning_rate: float = Field(default=0.5, gt=0)
    """Step size of Adam, constant."""
    weight_decay: float = Field(default=0.5, ge=0)
    """Weight of |delta| / |v|^2."""
    kl_factor: float = Field(default=0.0625, ge=0)
    """Weight of the KL term; with 0 the KL prompt is not run."""
    clamp_norm_factor: float = Field(default=0.75, gt=0)
    """Upper bound of |delta| / |v|."""
    stop_below: float = Field(default=0.05, ge=0)
    """A request stops when its loss is below."""
    stop_after_hits: int | None = Field(default=None, ge=1)
    """A request also stops when, in this many steps so far, all target tokens have been the most likely in every
    context (most-probable early stopping, arXiv 2502.01636: 2 for Llama-3-8B, 4 for GPT-2 XL); None: never."""
    compat: Literal["none", "encore-6e3ba9a"] = "none"
    """`encore-6e3ba9a`: the bare prompt does not have to predict the target for `stop_after_hits`."""
    anchor: AnyAnchor | None = None
    """`nas`, or its settings as `{kind: nas, norm: 14.6}`: the values of all edits get the same norm."""
    max_tokens_per_pass: int | None = Field(default=None, ge=1)
    """Tokens per pass, counted from each subject's last token on; a request with more runs alone. None chooses by the
    free memory. It is halved when memory runs out."""


RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "values.learning_rate": Range(low=0.05, high=5.0, log=True),
        "values.weight_decay": Range(low=1e-4, high=1.0, log=True),
        "values.clamp_norm_factor": Range(low=0.5, high=8.0, log=True),
    }
)
"""Setting of a method with these options -> the values among which a search chooses."""
