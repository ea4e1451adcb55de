"""The edit request: one fact to change, and the prompts that measure what the change did.

Every dataset is converted to this record when it is read (`tasks/data/loader.py`); all other code uses its field names.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Probe(BaseModel):
    """A prompt other than the edited one, and its correct answer."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    prompt: str = Field(min_length=1)
    """The text given to the model."""
    answer: str | None = None
    """The gold answer; None where the dataset has none (then only agreement with the pre-edit output is scored)."""


class EditRequest(BaseModel):
    """One fact to write into a model (Meng et al. 2022, section 2: subject, relation, object)."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    case_id: str
    """The dataset's own identifier of the row, unique within a dataset."""
    prompt: str = Field(min_length=1)
    """The edit prompt, subject included: the text after which `target_new` must follow."""
    subject: str | None = None
    """The subject as it occurs in `prompt` (checked by methods that need one); None where the dataset has none."""
    target_new: str = Field(min_length=1)
    """The new answer, without a leading space."""
    target_true: str | None = None
    """The answer before the edit, without a leading space; the probability protocol compares with it."""
    rephrase_prompts: tuple[str, ...] = ()
    """Other phrasings of `prompt`: `target_new` must follow them too (generalization)."""
    locality: tuple[Probe, ...] = ()
    """Prompts about other facts: their answers must stay (locality)."""
    portability: tuple[Probe, ...] = ()
    """Prompts whose answers follow from the new fact (portability)."""
    persona_prompts: tuple[str, ...] = ()
    """`prompt` as other people would ask it (WikiBigEdit's personas): `target_new` must follow them too."""
    text_prompts: tuple[str, ...] = ()
    """Beginnings of longer texts about the subject (CounterFact's generation prompts); there is no correct answer."""
    references: tuple[str, ...] = ()
    """Texts about entities with the new answer, which generated text is compared with (Meng et al. 2022)."""
