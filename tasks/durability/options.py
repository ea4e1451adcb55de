"""The keys of durability: what is done to a checkpoint after its edits, and at which checkpoints."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

from overedit.editing.durability.plain_text import PlainTextTuning
from overedit.editing.trajectory.runner import check_counts

ACCEPTED = "quantize_int8, quantize_int4, merge_base:SHARE (0 to 1, the share of the edit that is kept), finetune:STEPS"
"""The operations, for messages."""


class Operation(NamedTuple):
    """One step after a checkpoint."""

    kind: Literal["quantize", "merge_base", "finetune"]
    value: float
    """Bits of the integers; the share of the edit that is kept; or the steps of training."""

    @property
    def name(self) -> str:
        """As it is written in a configuration and in the column `after`."""
        return f"quantize_int{self.value:g}" if self.kind == "quantize" else f"{self.kind}:{self.value:.12g}"


def parse_operation(text: str) -> Operation:
    """Read an operation, e.g. `quantize_int8` or `merge_base:0.5`.

    Raises:
        ValueError: It is none of those that are accepted.
    """
    kind, colon, number = text.partition(":")
    if not colon and kind in ("quantize_int8", "quantize_int4"):
        return Operation("quantize", int(kind.removeprefix("quantize_int")))
    if kind == "finetune" and number.isascii() and number.isdecimal() and 1 <= int(number) <= 10**9:
        return Operation("finetune", int(number))
    if kind == "merge_base":
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if 0 <= share <= 1:
            return Operation("merge_base", share)
    raise ValueError(f"{text!r} is no operation; accepted: {ACCEPTED}")


class FinetuneOptions(PlainTextTuning):
    """The training of `finetune:STEPS`."""

    corpus: str | None = None
    """The plain text, named like `perplexity.corpus`, which is the default. Of a shipped world these are its training
    texts; of another corpus that perplexity is measured on too, those after the texts that it is measured on."""


class AfterKeys(BaseModel):
    """The keys of a benchmark that ask whether edits last."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    after: tuple[str, ...] = ()
    """What is done to a checkpoint after its edits, each by itself: the edits are then measured again.

    `quantize_int8`, `quantize_int4`: the linear layers are rounded (symmetric, one scale per output channel).
    `merge_base:SHARE`: base + SHARE * (edited - base). `finetune:STEPS`: training on plain text. The rows are in tables
    of their own (`outcomes_after`, ...) and in the view `durability`.
    """
    after_at: Literal["last"] | tuple[int, ...] = "last"
    """The edit counts of these checkpoints: the last one of each trajectory, or a list."""
    after_finetune: FinetuneOptions = Field(default=FinetuneOptions())
    """How `finetune:STEPS` trains."""

    @field_validator("after", mode="before")
    @classmethod
    def _known_operations(cls, given: Any) -> Any:
        if not isinstance(given, list | tuple) or not all(isinstance(text, str) for text in given):
            raise ValueError(f"a list is expected, e.g. [quantize_int8]; accepted: {ACCEPTED}")
        return tuple(dict.fromkeys(parse_operation(text).name for text in given))

    @field_validator("after_at", mode="before")
    @classmethod
    def _last_or_counts(cls, given: Any) -> Any:
        """Say what is accepted in one sentence: a message for each of the two types would hide it."""
        if given == "last":
            return given
        if not isinstance(given, list | tuple) or not given or not all(type(count) is int for count in given):
            raise ValueError(f"{given!r} is neither last nor a list of edit counts, e.g. [100, 1000]")
        try:
            check_counts(given)
        except ValueError as error:
            raise ValueError(str(error).removeprefix("edit_counts: ")) from None
        return tuple(given)

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations of `after`."""
        return tuple(map(parse_operation, self.after))

    def check_after(self, *, edit_counts: tuple[int, ...] | None, has_text: bool) -> None:
        """Check the keys against the others of the run.

        Args:
            edit_counts: Those of the run; None where a search chooses them.
            has_text: Whether there is a `perplexity.corpus`.

        Raises:
            ValueError: A count is not measured, or `finetune` has no text.
        """
        if self.after_at != "last":
            if edit_counts is None:
                raise ValueError(
                    f"after_at: {list(self.after_at)}: where a search chooses the edit counts, last is accepted"
                )
            unknown = [count for count in self.after_at if count not in edit_counts]
            if unknown:
                known = ", ".join(map(str, edit_counts))
                raise ValueError(f"after_at: {unknown[0]} is not among edit_counts, which are {known}")
        trains = [operation.name for operation in self.operations if operation.kind == "finetune"]
        if trains and not has_text and self.after_finetune.corpus is None:
            raise ValueError(f"after: {trains[0]} needs text: give after_finetune.corpus or perplexity.corpus")
