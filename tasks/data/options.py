"""Which edit requests a run reads, and from where."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from overedit.tasks.data.catalog import HUBS, LAYOUTS, Layout
from overedit.tasks.data.deduplication import ConflictRule
from overedit.tasks.pocket_world.shipped import WORLDS
from overedit.tasks.system.untrusted import shown_value

DatasetName = Literal[
    "pocket",
    "zsre",
    "counterfact",
    "wikibigedit",
    "ultraeditbench",
    "fever",
    "mquake",
    "hardedit",
    "hardcf",
    "file",
]


DATASETS: tuple[str, ...] = get_args(DatasetName)


class FileColumns(BaseModel):
    """The columns of your own file; a column named here must be in every row."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    prompt: str = "prompt"
    """The edit prompt, subject included; `{}` in it is replaced by the subject."""
    target_new: str = "target_new"
    """The new answer."""
    case_id: str | None = None
    """Identifier of the row (text or whole number); rows are numbered where there is none."""
    subject: str | None = None
    """The subject, as the prompt spells it."""
    target_true: str | None = None
    """The answer before the edit; of a list, the first that differs from the new one."""
    rephrase_prompts: str | None = None
    """One other phrasing, or a list."""
    locality: str | None = None
    """One prompt about another fact, a list, or a list of objects with `prompt` and `answer`."""
    locality_answers: str | None = None
    """The answers to `locality`: a list as long, or one text for all."""
    portability: str | None = None
    """As `locality`, for prompts whose answer follows from the new fact."""
    portability_answers: str | None = None
    """As `locality_answers`."""
    text_prompts: str | None = None
    """One beginning of a longer text, or a list."""
    references: str | None = None
    """One text that such longer texts should be like, or a list."""

    def layout(self) -> Layout:
        """The columns as a layout; a field that is not named is read from a column of its own name."""
        return Layout(
            prompt=self.prompt,
            target_new=self.target_new,
            case_id=self.case_id or "case_id",
            subject=self.subject or "subject",
            target_true=(self.target_true or "target_true",),
            rephrase=(self.rephrase_prompts or "rephrase_prompts",),
            persona=("persona_prompts",),
            text=(self.text_prompts or "text_prompts",),
            references=(self.references or "references",),
            locality=((self.locality or "locality", self.locality_answers or "locality_answers"),),
            portability=((self.portability or "portability", self.portability_answers or "portability_answers"),),
            required=tuple(self.model_dump(exclude_none=True, exclude={"prompt", "target_new"}).values()),
        )


class DatasetOptions(BaseModel):
    """Which edits, how many, and in which order."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: DatasetName = "pocket"
    """A dataset known by name (its columns are known), or `file` for your own columns."""
    path: Path | None = None
    """A local JSON, JSONL, Parquet or CSV file; without one a named dataset comes from the hub, if it is there."""
    hub: str | None = None
    """Another hub id than the dataset's own."""
    split: str | None = None
    """Another split on the hub than the dataset's own."""
    revision: str | None = None
    """Commit, branch or tag on the hub; name a commit to have the same rows for ever."""
    files: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Other files on the hub than the dataset's own, e.g. one of WikiBigEdit's intervals of time."""
    limit: int | None = Field(default=None, ge=1)
    """How many edits to take, after ordering; all where not given."""
    order_seed: int | None = Field(default=0, ge=-(2**63), lt=2**63)
    """Seed of the order of editing; null keeps the dataset's order."""
    columns: FileColumns = FileColumns()
    """For `file`: which column holds what."""
    conflicts: ConflictRule = "last"
    """When a prompt comes again with another target: keep both edits (the last wins), keep the first alone, or stop."""

    @field_validator("name", mode="before")
    @classmethod
    def _known(cls, name: Any) -> Any:
        if name in DATASETS:
            return name
        near = difflib.get_close_matches(name[:40].lower() if isinstance(name, str) else "", DATASETS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown dataset {shown_value(name)}{hint} (known: {', '.join(DATASETS)})")

    @model_validator(mode="after")
    def _fitting(self) -> DatasetOptions:
        if self.name == "file" and self.path is None:
            raise ValueError("dataset 'file' needs `path`, a JSON, JSONL, Parquet or CSV file")
        if self.name != "file" and self.columns != FileColumns():
            raise ValueError(f"`columns` is for dataset 'file'; the columns of {self.name!r} are known")
        on_hub = {"hub": self.hub, "split": self.split, "revision": self.revision, "files": self.files}
        given = [key for key, value in on_hub.items() if value is not None]
        if given and (self.path is not None or self.name not in LAYOUTS):
            raise ValueError(f"`{given[0]}` is for a dataset of the hub, not for {self.path or repr(self.name)}")
        if self.name in LAYOUTS and self.name not in HUBS and self.path is None and self.hub is None:
            raise ValueError(
                f"dataset {self.name!r} has no known source on the dataset hub; name a local file by `path` "
                "(JSON, JSONL, Parquet or CSV), or the id of a dataset there by `hub`"
            )
        if self.name in WORLDS and self.path is not None:
            raise ValueError(
                f"dataset {self.name!r} is generated and takes no `path`; use name 'file' for your own rows"
            )
        return self
