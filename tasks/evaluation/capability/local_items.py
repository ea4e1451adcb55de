"""Items of lm-eval tasks from local files (JSON, JSONL, Parquet) instead of a download; no code of them is run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from overedit.tasks.data.reader import SEPARATORS, Row, read_file
from overedit.tasks.system.untrusted import error_message

_SUFFIXES = (".json", ".jsonl", ".parquet")
_FORMATTED = ("doc_to_text", "doc_to_target", "doc_to_choice", "gen_prefix")


class LocalItems(NamedTuple):
    """The local files of a task."""

    path: Path
    shots: int
    """Worked examples that will be shown; with 0 their split may be missing."""


def files_digest(files: Mapping[str, Path]) -> dict[str, str]:
    """Digest the local files by task: their names and contents.

    Raises:
        ValueError: There is no such file or folder.
    """
    return {task: _digest(task, path) for task, path in sorted(files.items())}


def read_local_items(config: Any, local: LocalItems) -> dict[str, Any]:
    """Read the splits that a task uses: the one it is evaluated on, and the one of its worked examples.

    Args:
        config: The task's configuration.
        local: Its local items.

    Returns:
        Split -> `datasets.Dataset`.

    Raises:
        ValueError: A file, split or column is missing; the message names the task, the file and what is missing.
    """
    asked = config.test_split or config.validation_split
    shown = _fewshot_split(config)
    splits = {asked: _items(config, local.path, asked, is_asked=True)}
    if shown not in (None, asked):
        splits[shown] = _items(config, local.path, shown) if local.shots else splits[asked]
    if shown is not None and local.shots > (there := len(splits[shown]) - (shown == asked)):
        raise ValueError(
            f"capability.files.{config.task}: {local.shots} worked examples are asked for, and the split {shown!r} of "
            f"{local.path} holds {there}"
        )
    for split in {config.training_split, config.validation_split} - {None, *splits}:
        splits[split] = splits[asked]  # lm-eval checks that they exist, and uses nothing of them
    return splits


def _fewshot_split(config: Any) -> str | None:
    """The split from which lm-eval draws a task's worked examples; None where the task file contains them."""
    fewshot = config.fewshot_config
    if fewshot.split is not None:
        return str(fewshot.split)
    if fewshot.samples is not None:
        return None
    split: str | None = config.training_split or config.validation_split or config.test_split
    return split


def _items(config: Any, path: Path, split: str, *, is_asked: bool = False) -> Any:
    import datasets

    task, found = config.task, _split_files(config, path, split, is_asked=is_asked)
    rows: list[Row] = []
    for file in found:
        if file.suffix.lower() in SEPARATORS:
            kinds = "JSON, JSONL and Parquet are accepted; the values of CSV are all texts"
            raise ValueError(f"capability.files.{task}: {file}: {kinds}")
        try:
            rows += read_file(file)
        except ValueError as error:
            raise ValueError(f"capability.files.{task}: {error}") from error
    where = f"capability.files.{task}: {found[0]}"
    _check_columns(config, rows, where)
    try:
        return datasets.Dataset.from_list([dict(row) for row in rows])
    except pa.ArrowException as error:
        reason = error_message(error)
        raise ValueError(f"{where}: a column holds values of several kinds: {reason}") from error


def _split_files(config: Any, path: Path, split: str, *, is_asked: bool) -> list[Path]:
    """Find the files of a split: the file given, or those of a folder whose names start with the split's.

    A folder may contain a folder of the task's dataset name (`mmlu/anatomy/test-00000-of-00001.parquet`), or `data`.
    """
    if path.is_file():
        if is_asked:
            return [path]
        raise ValueError(
            f"capability.files.{config.task}: the worked examples are drawn from the split {split!r}, and {path} is "
            f"only what is asked; name a folder that holds {split}.jsonl too, or set capability.shots.{config.task}=0"
        )
    if not path.is_dir():
        raise ValueError(f"capability.files.{config.task}: there is no file or folder {path}")
    folders = [path / name for name in (config.dataset_name, "data") if name and (path / name).is_dir()] + [path]
    for folder in folders:
        files = [file for file in _data_files(folder) if file.stem == split or file.stem.startswith(f"{split}-")]
        if files:
            return files
    there = ", ".join(sorted({file.name for folder in folders for file in _data_files(folder)})[:10])
    raise ValueError(
        f"capability.files.{config.task}: {path} has no file of the split {split!r} ({split}.jsonl, {split}.json or "
        f"{split}*.parquet); it has {there or 'none at all'}"
    )


def _data_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES and file.is_file())


def _check_columns(config: Any, rows: Sequence[Row], where: str) -> None:
    """Check that each row has the columns that the task's templates use, unless the task computes its own columns."""
    if config.process_docs is not None:
        return
    for number, row in enumerate(rows, 1):
        for column in _columns(config):
            if column not in row:
                raise ValueError(f"{where}, row {number}, has no column {column!r}; it has {', '.join(sorted(row))}")


def _columns(config: Any) -> list[str]:
    from jinja2 import meta
    from lm_eval.utils import env

    columns: dict[str, None] = {}
    for name in _FORMATTED:
        template = getattr(config, name)
        if isinstance(template, str):
            found = {template} if template.isidentifier() else meta.find_undeclared_variables(env.parse(template))
            columns |= dict.fromkeys(sorted(found))
    return list(columns)


def _digest(task: str, path: Path) -> str:
    if not path.exists():
        raise ValueError(f"capability.files.{task}: there is no file or folder {path}")
    whole = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file() and (file == path or file.suffix in _SUFFIXES):
            whole.update(f"{file.relative_to(path)}\n".encode())
            with file.open("rb") as stream:
                whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()
