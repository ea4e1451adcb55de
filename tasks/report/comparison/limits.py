"""The limits of a gate: how far a number may fall below the baseline before an instance fails."""

from __future__ import annotations

import re
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

_CONDITION = re.compile(r"\s*(\w+)\s*([<>])\s*([-+]?[0-9.]+)\s*")


class GateOptions(BaseModel):
    """What fails an instance: a number that moved by more than chance, and by more than its limit.

    A difference counts as moved if its p value, adjusted by Holm's method over all numbers compared, is below 0.05.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    reliability: float | None = Field(default=None, le=0)
    """The largest loss that passes, as a negative difference, e.g. -0.02."""
    generalization: float | None = Field(default=None, le=0)
    """The same for rephrased prompts."""
    locality: float | None = Field(default=None, le=0)
    """The same for prompts that edits should not change."""
    portability: float | None = Field(default=None, le=0)
    """The same for prompts that need the edited fact."""
    capability: float | None = Field(default=None, le=0)
    """The same for the mean of the general benchmarks."""
    perplexity: float | None = Field(default=None, ge=1)
    """The largest ratio of perplexities that passes, after / before, e.g. 1.05."""
    any_significant: bool = False
    """Fail if any number moved, in either direction."""

    def limit_of(self, kind: str, measure: str) -> float | None:
        """The limit of a measure; None without one."""
        if kind == "capability":
            return self.capability if measure == "mean" else None
        if kind == "perplexity":
            return self.perplexity
        limits = {"reliability", "generalization", "locality", "portability"}
        return getattr(self, measure) if measure in limits else None

    def fails(self, kind: str, measure: str, difference: float | None) -> bool:
        """Whether a moved number fails; a difference that is not finite fails wherever there is a limit."""
        limit = self.limit_of(kind, measure)
        if self.any_significant:
            return True
        if limit is None:
            return False
        if difference is None:
            return True
        return difference > limit if kind == "perplexity" else difference < limit

    @classmethod
    def parsed(cls, conditions: list[str]) -> Self:
        """The limits of conditions such as `reliability < -0.02`, `perplexity > 1.05` and `any_significant`.

        Raises:
            ValueError: A condition is not one of these.
        """
        values: dict[str, float | bool] = {}
        for condition in conditions:
            match = _CONDITION.fullmatch(condition)
            if condition.strip() == "any_significant":
                values["any_significant"] = True
            elif match and match[1] in cls.model_fields and match[2] == (">" if match[1] == "perplexity" else "<"):
                values[match[1]] = float(match[3])
            else:
                measures = ", ".join(name for name in cls.model_fields if name not in ("perplexity", "any_significant"))
                raise ValueError(
                    f"fail-if: {condition!r} is not understood; accepted: 'any_significant', 'perplexity > 1.05', "
                    f"or 'MEASURE < -0.02' with one of {measures}"
                )
        return cls.model_validate(values)
