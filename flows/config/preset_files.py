"""Preset files in a configuration: `methods: [{preset: FILE}]`, and the check that none was tuned on a run's edits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from overedit.editing.methods.registry import METHODS
from overedit.editing.requests import EditRequest
from overedit.flows.config.loading import read_yaml
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.system.untrusted import shown_value
from overedit.tasks.tune.leakage import among, not_among, shown_cases
from overedit.tasks.tune.preset_file import PresetFile, preset_path


class UsedPreset(BaseModel):
    """A preset file that a configuration names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    file: str
    """As the configuration names it."""
    method: str
    digest: str
    """A digest of the file's content: another content is another configuration."""


def with_preset_files(methods: Sequence[Any]) -> tuple[list[Any], list[UsedPreset]]:
    """Replace `preset: FILE` in methods by the file's settings; further keys beside it take precedence.

    Returns:
        The methods, and the files that they name.

    Raises:
        ValueError: A file is missing or no preset file; the message has the key, the value and what is accepted.
    """
    found: list[Any] = []
    used: list[UsedPreset] = []
    for index, method in enumerate(methods):
        if not isinstance(method, dict) or "preset" not in method:
            found.append(method)
            continue
        name = method["preset"]
        preset = read_preset(name, key=f"methods.{index}.preset")
        if method.get("method", preset.method) != preset.method:
            raise ValueError(
                f"methods.{index}.method: {shown_value(method['method'])}, but {name} is for {preset.method}"
            )
        given = {key: value for key, value in method.items() if key != "preset"}
        found.append(_merged({"method": preset.method} | preset.settings, given))
        used.append(UsedPreset(file=name, method=preset.method, digest=preset.digest))
    return found, used


def read_preset(name: Any, *, key: str) -> PresetFile:
    """Read a preset file.

    Args:
        name: A path, or `pocket/NAME`.
        key: The configuration's key that names it.

    Raises:
        ValueError: It is missing or no preset file.
    """
    accepted = "accepted: a file that overedit tune wrote, or pocket/METHOD"
    if not isinstance(name, str):
        raise ValueError(f"{key}: {shown_value(name)} is no file; {accepted}")
    try:
        preset = PresetFile.model_validate(read_yaml(preset_path(name)))
    except ValidationError as error:
        mistake = error.errors(include_url=False)[0]
        where = ".".join(map(str, mistake["loc"]))
        raise ValueError(f"{key}: {name} is no preset file ({where}: {mistake['msg']}); {accepted}") from error
    except ValueError as error:
        raise ValueError(f"{key}: {error}; {accepted}") from error
    if preset.method not in METHODS:
        raise ValueError(f"{key}: {name} is for the unknown method {shown_value(preset.method)}; {accepted}")
    return preset


def check_tuned_on(presets: Iterable[UsedPreset], requests: Iterable[EditRequest], dataset: str) -> None:
    """Check that no preset file was tuned on edits of a run.

    Args:
        presets: The files that the configuration names.
        requests: The edits of the run.
        dataset: The name of their dataset.

    Raises:
        ValueError: One was; the message has the cases.
    """
    for used in presets:
        preset = read_preset(used.file, key="preset_files")
        seen = among(requests, dataset, frozenset(preset.tuned_on))
        if seen:
            raise ValueError(
                f"methods: {used.file} was tuned on {shown_cases(seen)} of this run, so their results would flatter "
                f"{used.method}; accepted: edits that the search did not see, or tuned_edits: leave_out or accept"
            )


def without_tuned_on(presets: Iterable[UsedPreset], requests: RequestStore, dataset: str) -> RequestStore:
    """The edits of a run that no preset file was tuned on; see `check_tuned_on`."""
    marks = {mark for used in presets for mark in read_preset(used.file, key="preset_files").tuned_on}
    return RequestStore(not_among(requests, dataset, frozenset(marks))) if marks else requests


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _merged(below[key], value)
        for key, value in above.items()
        if isinstance(value, dict) and isinstance(below.get(key), dict)
    }
    return below | above | both
