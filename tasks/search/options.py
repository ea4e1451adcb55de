"""The keys of a search for the collapse: `edit_counts: {search: collapse, ...}`."""

from __future__ import annotations

from statistics import NormalDist
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Definition = Literal["practical", "perplexity", "muted", "forgotten"]
"""Those of `collapse_definitions` that can be told at one edit count; `significant` needs the later ones too."""


class SearchOptions(BaseModel):
    """Edit counts that a search chooses: they grow until the model has collapsed, then the bracket is halved."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    search: Literal["collapse"]
    """What is searched."""
    definition: tuple[Definition, ...] = Field(default=("practical",), min_length=1)
    """Definitions of collapse (view `collapse_definitions`); each gets its own bracket, and they share the counts."""
    start: int = Field(default=1, ge=1)
    """The first edit count."""
    stop: int | None = Field(default=None, ge=1)
    """The last edit count, whether or not the model has collapsed; by default the number of edit requests."""
    growth: float = Field(default=10**0.5, gt=1)
    """The ratio of an edit count to the one before, until the model has collapsed."""
    precision: float = Field(default=0.1, gt=0, le=1)
    """How far the last good count and the first bad one may differ in the end, as a share of the last good one."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """The probability that the bracket holds the true collapse point, if ability only falls with edits."""
    items: int | None = Field(default=None, ge=1)
    """Items of each capability task that are asked first; where they do not decide, four times as many, up to
    `capability.limit`. All at once by default."""

    @field_validator("definition", mode="before")
    @classmethod
    def _one_or_several(cls, definition: object) -> object:
        return (definition,) if isinstance(definition, str) else definition

    @model_validator(mode="after")
    def _starts_before_it_stops(self) -> Self:
        if self.stop is not None and self.stop < self.start:
            raise ValueError(f"stop: {self.stop} is below start, which is {self.start}")
        return self

    def check_measured(self, *, capability: bool, perplexity: bool, generated: bool) -> None:
        """Check that a run measures at every edit count what the definitions ask.

        Raises:
            ValueError: It does not.
        """
        if {"practical", "muted"} & {*self.definition} and not capability:
            raise ValueError(
                f"edit_counts.definition: {', '.join(self.definition)} needs capability at every edit count: give "
                "capability.tasks or capability.suite, and capability.when: every"
            )
        if "perplexity" in self.definition and not perplexity:
            raise ValueError("edit_counts.definition: perplexity needs perplexity.corpus")
        if "forgotten" in self.definition and not generated:
            raise ValueError("edit_counts.definition: forgotten needs generated among evaluation.protocols")

    def growing(self) -> list[int]:
        """The edit counts that are measured as long as the model is good; `stop` must be known."""
        assert self.stop is not None
        found: list[int] = []
        factor = 1.0
        while not found or found[-1] < self.stop:
            count = min(round(self.start * factor), self.stop)
            found += [count] if not found or count > found[-1] else []
            factor *= self.growth
        return found

    def item_limits(self, most: int | None) -> list[int | None]:
        """The numbers of items of each task that are asked one after another, up to `most`; None is all."""
        limits: list[int | None] = []
        items = self.items
        while items is not None and (most is None or items < most) and len(limits) < 3:
            limits.append(items)
            items *= 4
        return [*limits, most]

    def z(self) -> float:
        """The half-width of the intervals by which one count is judged, in standard errors.

        Each edge of the bracket may be wrong with half of the probability that is left, at each number of items with an
        equal part of it. Several counts can make an edge wrong, but those away from the collapse hardly do; that the
        bracket as a whole keeps its confidence is simulated in the tests.
        """
        return NormalDist().inv_cdf(1 - (1 - self.confidence) / (2 * len(self.item_limits(None))))
