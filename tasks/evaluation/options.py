"""How a checkpoint is measured: the keys of a configuration."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from overedit.tasks.engine.options import EngineOptions
from overedit.tasks.evaluation.capability.options import CapabilityOptions
from overedit.tasks.warehouse.vocabulary import ProbeKind, ProtocolName


class EvaluationOptions(BaseModel):
    """Which cases and probes are asked, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    protocols: tuple[ProtocolName, ...] = Field(default=("generated", "teacher_forced", "probability"), min_length=1)
    """How answers are taken: `generated`, `teacher_forced`, `probability`."""
    probes: tuple[ProbeKind, ...] = Field(
        default=("edit", "rephrase", "persona", "locality", "portability"), min_length=1
    )
    """What is asked of each case."""
    sample: int | None = Field(default=None, ge=1)
    """The most cases asked at a checkpoint: the first edited, the last, and evenly in between; all if not given."""
    max_tokens: int = Field(default=32, ge=1)
    """The longest generated answer, in tokens."""
    text_tokens: int = Field(default=100, ge=1)
    """The same for the probe `text`, which only an end-of-text token ends earlier."""
    stop: tuple[str, ...] = (".", "\n")
    """Strings that end a generated answer; a target that contains one cannot be matched (`unreachable_cases`)."""
    max_rephrase: int = Field(default=2, ge=0)
    """The most phrasings asked of a case."""
    max_persona: int = Field(default=1, ge=0)
    """The most voices in which a case is asked."""
    max_locality: int = Field(default=3, ge=0)
    """The most locality prompts asked of a case."""
    max_portability: int = Field(default=1, ge=0)
    """The most portability prompts asked of a case."""
    max_text: int = Field(default=10, ge=0)
    """The most longer texts asked of a case."""


class MeasureOptions(BaseModel):
    """All options of measuring a checkpoint."""

    model_config = ConfigDict(frozen=True)

    evaluation: EvaluationOptions
    perplexity: PerplexityOptions
    capability: CapabilityOptions
    engine: EngineOptions


class PerplexityOptions(BaseModel):
    """The text on which perplexity is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    corpus: Path | None = None
    """A local file: JSON, JSONL or Parquet rows with a field `text` (or `Text`), or a .txt file, one text a line.

    `pocket` is the pocket world's own; `owner/name:configuration` is a dataset on the hub.
    """
    limit: int | None = Field(default=200, ge=1)
    """The most texts, from the first on; None takes all."""
