"""Plain texts by the name of their corpus: a local file, a hub dataset, or a shipped world (`pocket`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from overedit.editing.storage.checksums import digest
from overedit.tasks.data.reader import SEPARATORS, read_file
from overedit.tasks.pocket_world.shipped import WORLDS, ShippedWorld

TEXT_FIELDS = ("text", "Text")
"""The columns that may hold a row's text; the second is that of ME-PPL (arXiv 2402.09656)."""
FILE_KINDS = (".txt", ".json", ".jsonl", ".parquet", *SEPARATORS)


class Corpus(NamedTuple):
    """Texts and their digest."""

    texts: Iterable[str]
    """Non-empty texts: a list, or for the hub a stream that can be iterated again."""
    digest: str
    """Digest of the texts; for a hub dataset, of its name, commit and number of texts, which determine them."""


def open_corpus(name: str, limit: int | None, *, key: str, held_out: bool = False) -> Corpus:
    """Open the first texts of a corpus, without empty lines and rows.

    Args:
        name: A local file (.txt, one text a line; JSON, JSONL or Parquet rows with a field `text` or `Text`); a shipped
            world (`pocket`); or a hub dataset `owner/name[:configuration][@commit]`, whose split `train` is streamed.
        limit: The most texts; None takes all.
        key: The configuration key that named the corpus, for error messages.
        held_out: Take a shipped world's held-out texts instead of its training texts.

    Raises:
        ValueError: There is no such corpus, a row has no text, or there is no text at all; with key and name.
    """
    if not name.strip():
        raise ValueError(f"{key}: '' names no corpus; give a file, a hub dataset (owner/name), or pocket")
    if _is_on_hub(name):
        return _on_hub(name, limit, key)
    found = _world_texts(WORLDS[name], limit, held_out) if name in WORLDS else _file_texts(Path(name).expanduser(), key)
    texts = list(islice(_filled(found), limit))
    if not texts:
        raise ValueError(f"{key}: {name} holds no text")
    return Corpus(texts, texts_digest(texts))


def texts_digest(texts: Iterable[str]) -> str:
    """SHA-256 (hex) of texts in their order, each preceded by its length in bytes (8 bytes, big-endian)."""
    whole = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        whole.update(len(encoded).to_bytes(8, "big") + encoded)
    return whole.hexdigest()


def _is_on_hub(name: str) -> bool:
    path = Path(name).expanduser()
    looks_like_file = path.is_absolute() or name.startswith(".") or path.suffix.lower() in FILE_KINDS
    return name not in WORLDS and not looks_like_file and not path.exists()


def _world_texts(world: ShippedWorld, limit: int | None, held_out: bool) -> Sequence[str]:
    return world.held_out_texts(limit) if held_out else world.training_texts(limit)


def _file_texts(path: Path, key: str) -> Iterable[str]:
    if path.suffix.lower() == ".txt":
        if not path.is_file():
            raise ValueError(f"{key}: there is no file {path}")
        try:
            return path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{key}: {path} is not UTF-8 text (byte {error.start + 1})") from error
    try:
        rows = read_file(path)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    return [_text_of(row, number, str(path), key) for number, row in enumerate(rows, 1)]


class _HubTexts:
    """The texts of a hub dataset; every iteration streams them again."""

    def __init__(self, name: str, configuration: str | None, commit: str, limit: int | None, key: str) -> None:
        self.name, self.configuration, self.commit, self.limit, self.key = name, configuration, commit, limit, key

    def __iter__(self) -> Iterator[str]:
        with _hub_errors(self.name, self.key):
            builder = _builder(self.name, self.configuration, self.commit)
            rows = enumerate(builder.as_streaming_dataset(split="train"), 1)
            yield from islice(_filled(_text_of(row, i, self.name, self.key) for i, row in rows), self.limit)


def _on_hub(name: str, limit: int | None, key: str) -> Corpus:
    whole, _, revision = name.partition("@")
    dataset, _, configuration = whole.partition(":")
    if len(revision) == 40 and set(revision) <= set("0123456789abcdef"):
        commit = revision  # determines the texts, so the hub need not be asked
    else:
        with _hub_errors(name, key):
            commit = str(_builder(dataset, configuration or None, revision or None).hash)
    return Corpus(
        _HubTexts(dataset, configuration or None, commit, limit, key),
        digest({"hub": dataset, "configuration": configuration, "commit": commit, "limit": limit}),
    )


def _builder(dataset: str, configuration: str | None, revision: str | None) -> Any:
    """Make the builder of a hub dataset, which runs no code of the dataset; its `hash` is the commit."""
    import datasets

    return datasets.load_dataset_builder(dataset, configuration, revision=revision)


@contextmanager
def _hub_errors(name: str, key: str) -> Iterator[None]:
    from datasets.exceptions import DatasetsError

    try:
        yield
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        if str(error).startswith(f"{key}:"):
            raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(
            f"{key}: {name} is no file here and no dataset that can be read from the hub ({reason}); "
            "give a file, owner/name or owner/name:configuration, or pocket"
        ) from error


def _filled(texts: Iterable[str]) -> Iterator[str]:
    return (text.strip() for text in texts if text.strip())


def _text_of(row: Mapping[str, Any], number: int, where: str, key: str) -> str:
    text = next((row[field] for field in TEXT_FIELDS if field in row), None)
    if not isinstance(text, str):
        raise ValueError(f"{key}: row {number} of {where} has no text; a field {' or '.join(TEXT_FIELDS)} is needed")
    return text
