"""The edit request: one fact to change, and the prompts that measure what the change did.

Every dataset is translated into this record once, where it is read (`tasks/data/loader.py`); from there on
the words below are the only ones used.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Probe(BaseModel):
    """A prompt beside the edited one, and the answer that is right for it."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    prompt: str = Field(min_length=1)
    """The text put to the model."""
    answer: str | None = None
    """The gold answer; None where the dataset gives none (then only agreement with the pre-edit output is scored)."""


class EditRequest(BaseModel):
    """One fact to write into a model (Meng et al. 2022, section 2: subject, relation, object)."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    case_id: str
    """The dataset's own identifier of the row, unique within a dataset."""
    prompt: str = Field(min_length=1)
    """The edit prompt, subject included: the text after which `target_new` must follow."""
    subject: str | None = None
    """The subject as it stands in `prompt`, which methods that need one check; None where the dataset has none."""
    target_new: str = Field(min_length=1)
    """The new answer, without a leading blank."""
    target_true: str | None = None
    """The answer before the edit, without a leading blank; the probability protocol compares with it."""
    rephrase_prompts: tuple[str, ...] = ()
    """Other phrasings of `prompt`: `target_new` must follow them too (generalization)."""
    locality: tuple[Probe, ...] = ()
    """Prompts about other facts: their answers must stay (locality)."""
    portability: tuple[Probe, ...] = ()
    """Prompts whose answers follow from the new fact (portability)."""
    persona_prompts: tuple[str, ...] = ()
    """`prompt` as other people would ask it (WikiBigEdit's personas): `target_new` must follow them too."""
    text_prompts: tuple[str, ...] = ()
    """Beginnings of a longer text about the subject (CounterFact's generation prompts); no answer is the right one."""
    references: tuple[str, ...] = ()
    """Texts on what shares the new answer, which a longer text about the subject should be like (Meng et al. 2022)."""
