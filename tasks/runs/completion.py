"""Tells from files alone whether a run is complete and unchanged, without importing the code that edits and measures.

When a run has ended, `complete.json` in its folder records what was asked, a digest of Overedit's own files, package
versions, the input files, and the SHA-256 of every file that the run left. As long as all of that is
unchanged, a repeated run has nothing to do. In every other case the run itself checks each stage.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import overedit
from overedit.editing.storage.checksums import digest, file_sha256, sealed, unsealed
from overedit.tasks.runs.run import WITHOUT_EFFECT, Run, check_name
from overedit.tasks.storage.working_copy import is_there, local_home, pull_file, replace_file, tags, url_of
from overedit.tasks.system.packages import versions
from overedit.tasks.warehouse.tables import RESULTS

logger = logging.getLogger(__name__)

FILE = "complete.json"
_NOT_RESULTS = (FILE, "lock")


def write_completion(run: Run, content: Mapping[str, Any]) -> None:
    """Record that a run is complete. All its inputs must be local: a hub could change them.

    Args:
        run: A run that ended without a failure.
        content: The configuration as the user gave it, before presets and defaults.
    """
    record = {
        "asked": _asked(content),
        "model": run.model,
        "dataset": run.dataset,
        "files": _files(run),
    }
    with replace_file(run.folder / FILE) as stream:
        stream.write(sealed(json.dumps(record, indent=1) + "\n"))


def completed_run(content: Mapping[str, Any]) -> Run | None:
    """The run that a configuration describes, if it is complete and no byte of it has changed since; else None."""
    try:
        name = content["name"]
        check_name(name)
        home = local_home(content.get("home", ".")).resolve()
        pull_file(home / "runs" / name / FILE)
        record = json.loads(unsealed((home / "runs" / name / FILE).read_bytes()))
        run = Run(name=name, home=home, model=record["model"], dataset=record["dataset"])
        is_same = record["asked"] == _asked(content) and is_there(home / "warehouse" / "warehouse.duckdb")
        if not is_same or _files(run) != record["files"]:
            return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    logger.info("run %r was complete: nothing was edited or measured again", name)
    return run


def _asked(content: Mapping[str, Any]) -> str:
    """Digest of everything that determines the results."""
    inputs = {str(path): _stamp(path) for value in _texts(content) if (path := _existing(value)) is not None}
    plain = {key: value for key, value in content.items() if key not in WITHOUT_EFFECT}
    return digest([plain, inputs, own_files_digest(), versions()])


def _texts(value: Any) -> Iterator[str]:
    """Every string among the values of a configuration."""
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in WITHOUT_EFFECT:
                yield from _texts(item)
    elif isinstance(value, Iterable):
        for item in value:
            yield from _texts(item)


def _existing(text: str) -> Path | None:
    """The file or folder that a value names, or None."""
    try:
        path = Path(text).expanduser()
        return path.resolve() if text and path.exists() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _stamp(path: Path) -> list[Any]:
    """Name, size and time of each file below a path."""
    found = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    stats = [(str(each), each.stat()) for each in found]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def own_files_digest() -> str:
    """Digest of every source and data file of Overedit."""
    home = Path(overedit.__path__[0])
    total = hashlib.sha256()
    for folder in (parent / name for name in ("editing", "tasks", "flows") for parent in (home, home.parent)):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                total.update(f"{path.relative_to(folder)} {file_sha256(path)}\n".encode())
    return total.hexdigest()


def _files(run: Run) -> dict[str, str]:
    """The files of a run and what they contain: the SHA-256 of a file, the tag that a store gives to an object."""
    if url_of(run.home) is None:
        return {str(path.relative_to(run.home)): file_sha256(path) for path in _local_files(run)}
    folders = [run.folder, *(run.home / "warehouse" / table / run.name for table in RESULTS)]
    found = {folder / name: tag for folder in folders for name, tag in tags(folder).items()}
    found |= {run.report.parent / name: tag for name, tag in tags(run.report.parent).items() if _is_report(run, name)}
    return {str(path.relative_to(run.home)): tag for path, tag in found.items() if path.name not in _NOT_RESULTS}


def _is_report(run: Run, name: str) -> bool:
    return re.fullmatch(rf"{re.escape(run.name)}(\.html|(\.[^.]+)?\.png)", name) is not None


def _local_files(run: Run) -> list[Path]:
    """The files of a run: its folder, its rows, its report and pictures."""
    folders = [run.folder, *(run.home / "warehouse" / table / run.name for table in RESULTS)]
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    found += [run.report, *run.report.parent.glob(f"{run.name}.*.png"), run.report.with_suffix(".png")]
    return sorted({path for path in found if path.name not in _NOT_RESULTS})
