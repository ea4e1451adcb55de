"""Preset files: the settings that a search has chosen for a method, where they come from, and the edits that it saw.

A search writes one file per method into a folder, and its trials as a small warehouse beside them, so that where a
preset comes from is a query: `SELECT * FROM tuned_settings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from overedit.editing.methods.base import MethodConfig
from overedit.editing.storage.checksums import digest
from overedit.tasks.runs.run import Run
from overedit.tasks.storage.working_copy import replace_file
from overedit.tasks.warehouse.views import literal
from overedit.tasks.warehouse.warehouse import Warehouse

SHIPPED = Path(__file__).parents[1] / "pocket_world" / "presets"
"""The folder of the presets that come with Overedit: those of the pocket world, `pocket/NAME`."""

_HEAD = """\
# Written by overedit tune, to be used as `methods: [{preset: FILE}]`. The trials are in warehouse/ beside this file:
#   overedit presets --provenance FOLDER
"""


class Provenance(BaseModel):
    """Where the settings of a preset file come from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    run: str
    """The search, which `run` names in the table `trials`."""
    trajectory: str
    study: str
    """Digest of everything that determines the trials."""
    trial: int | None
    """The number of the chosen trial; null where no trial was better than the given settings, which are kept."""
    model: str
    model_digest: str
    dataset: str
    objective: str
    """What was maximized, in words."""
    trials: int
    """The budget: settings that were tried."""
    seed: int
    """Seed of the search."""
    seeds: tuple[int, ...]
    """Seeds of the order of the edits and of the editing."""
    edit_counts: tuple[int, ...]
    turn_size: int
    validation: float | None
    """The objective of the settings on the validation edits; of a trial it is the best of all."""
    test: float | None
    """The same on test edits, which were looked at once."""
    edits: str
    """Digest of `tuned_on`."""


class PresetFile(BaseModel):
    """The content of a preset file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    method: str
    settings: dict[str, Any]
    """Fields of the method's configuration."""
    provenance: Provenance
    tuned_on: tuple[str, ...] = Field(min_length=1)
    """Digests of the prompts and cases of the validation edits; a run that has one of them is refused."""

    @property
    def digest(self) -> str:
        """A digest of the content."""
        return digest(self.model_dump(mode="json"))


def preset_path(name: str) -> Path:
    """The file that a configuration names: a path, or `pocket/NAME` for one that comes with Overedit."""
    folder, _, stem = name.partition("/")
    shipped = SHIPPED / f"{stem}.yaml"
    return shipped if folder == "pocket" and "/" not in stem and shipped.is_file() else Path(name).expanduser()


def write_preset(path: Path, config: MethodConfig, provenance: Provenance, tuned_on: Sequence[str]) -> Path:
    """Write a preset file; the same search writes the same bytes.

    Args:
        path: The file; its folder is made if needed.
        config: The chosen settings.
        provenance: Where they come from.
        tuned_on: The marks of the validation edits.
    """
    settings = config.model_dump(mode="json", exclude_unset=True, exclude={"method"})
    preset = PresetFile(method=config.method, settings=settings, provenance=provenance, tuned_on=tuple(tuned_on))
    text = yaml.safe_dump(preset.model_dump(mode="json"), sort_keys=False, width=120, default_flow_style=None)
    with replace_file(path) as stream:
        stream.write((_HEAD + text).encode())
    return path


def write_trials(run: Run, folder: Path) -> None:
    """Copy the trials of a search into the warehouse beside its preset files, in one file."""
    sql = f"SELECT * FROM trials WHERE run = {literal(run.name)} ORDER BY ALL"
    rows = run.warehouse.query(sql)
    key = digest([row["study"] for row in rows.to_pylist()])
    Warehouse(folder / "warehouse").write("trials", rows, partition={"run": run.name}, key=key)


def provenance_rows(folder: str) -> Any:
    """Where the presets of a folder come from, from the trials beside them: an Arrow table.

    Args:
        folder: A folder that `overedit tune` has written, or `pocket` for the presets that come with Overedit.

    Raises:
        ValueError: There are no trials in the folder.
    """
    path = SHIPPED if folder == "pocket" else Path(folder).expanduser()
    if not (path / "warehouse" / "trials").is_dir():
        raise ValueError(
            f"--provenance: {path} holds no trials of a search; accepted: pocket, or a folder that overedit tune wrote"
        )
    return Warehouse(path / "warehouse").query(_PROVENANCE)


_PROVENANCE = """
SELECT label, run, kept, trial, num_trials, num_pruned, validation, validation_low, validation_high, test, test_low,
    test_high, gap, given_validation, given_test, settings
FROM tuned_settings ORDER BY test DESC
"""
