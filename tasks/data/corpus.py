"""Plain texts by the name of their corpus: a local file, a dataset on the hub, or `pocket`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from overedit.editing.storage.checksums import digest
from overedit.tasks.data.reader import read_file

TEXT_FIELDS = ("text", "Text")
"""Names under which a row keeps its text; the second is that of ME-PPL (arXiv 2402.09656)."""
FILE_KINDS = (".txt", ".json", ".jsonl", ".parquet")


class Corpus(NamedTuple):
    """Texts, and what tells them apart from others."""

    texts: Iterable[str]
    """Without empty ones; a list, or for the hub a stream that can be read again."""
    digest: str
    """Of the texts themselves; for a hub dataset of its name, commit and how many, which fix the texts."""


def open_corpus(
    name: str, limit: int | None, *, key: str, pocket: Callable[[int | None], Iterable[str]] | None = None
) -> Corpus:
    """The first texts of a corpus. Empty lines and rows are left out.

    Args:
        name: A local file (.txt, one text a line; JSON, JSONL or Parquet rows with a field `text` or `Text`); `pocket`;
            or a hub dataset `owner/name[:configuration][@commit]`, of which the split `train` is read as a stream.
        limit: How many texts at most; None takes all.
        key: The configuration key that named the corpus, for error messages.
        pocket: The pocket world's texts, given how many at most; its training texts by default.

    Raises:
        ValueError: There is no such corpus, a row has no text, or there is no text at all; with key and name.
    """
    if not name.strip():
        raise ValueError(f"{key}: '' names no corpus; give a file, a hub dataset (owner/name), or pocket")
    if _is_on_hub(name):
        return _on_hub(name, limit, key)
    found = _pocket_texts(limit, pocket) if name == "pocket" else _file_texts(Path(name).expanduser(), key)
    texts = list(islice(_filled(found), limit))
    if not texts:
        raise ValueError(f"{key}: {name} holds no text")
    return Corpus(texts, texts_digest(texts))


def texts_digest(texts: Iterable[str]) -> str:
    """SHA-256 (hex) of texts in their order, each behind its length."""
    whole = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        whole.update(len(encoded).to_bytes(8, "big") + encoded)
    return whole.hexdigest()


def _is_on_hub(name: str) -> bool:
    path = Path(name).expanduser()
    looks_like_file = path.is_absolute() or name.startswith(".") or path.suffix.lower() in FILE_KINDS
    return name != "pocket" and not looks_like_file and not path.exists()


def _pocket_texts(limit: int | None, pocket: Callable[[int | None], Iterable[str]] | None) -> Iterable[str]:
    from overedit.tasks.pocket_world.corpus import training_texts

    return (pocket or training_texts)(limit)


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
    """The texts of a hub dataset, fetched anew, as a stream, whenever they are iterated."""

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
        commit = revision  # fixes the texts, so the hub need not be asked
    else:
        with _hub_errors(name, key):
            commit = str(_builder(dataset, configuration or None, revision or None).hash)
    return Corpus(
        _HubTexts(dataset, configuration or None, commit, limit, key),
        digest({"hub": dataset, "configuration": configuration, "commit": commit, "limit": limit}),
    )


def _builder(dataset: str, configuration: str | None, revision: str | None) -> Any:
    """What reads a hub dataset; no code of the dataset is run. Its `hash` is the commit."""
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
