"""The outline of a home: what the commands that look at files need to know, without downloading them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from overedit.tasks.storage.stores import open_store
from overedit.tasks.storage.working_copy import RECORD, fetch, read, remove, sizes, url_of

_RECORDS = (RECORD, "costs.json")


@contextmanager
def outline(home: Path, folders: Sequence[str], *, with_records: bool = False) -> Iterator[Path]:
    """A folder like a home in a store: each object is a file of its size without content; a local home is itself.

    What the block removes is removed from the store when it ends without an error, and changed records are put there
    before that.

    Args:
        home: A home; for one in a store, its working copy.
        folders: Its folders that are wanted, e.g. `runs/demo`.
        with_records: Whether the records of checkpoints have their content.
    """
    if url_of(home) is None:
        yield home
        return
    with TemporaryDirectory(prefix="overedit-") as name:
        root = Path(name)
        there = {f"{folder}/{path}": size for folder in folders for path, size in sizes(home / folder).items()}
        for path, size in there.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
            os.truncate(root / path, size)
        records = {path: read(home / path) for path in there if with_records and Path(path).name in _RECORDS}
        for path, content in records.items():
            (root / path).write_bytes(content)
        yield root
        _put_changes(root, home, there, records)


def _put_changes(root: Path, home: Path, there: dict[str, int], records: dict[str, bytes]) -> None:
    for path, content in records.items():
        if (root / path).is_file() and (root / path).read_bytes() != content:
            files, place = open_store(str(url_of(home / path)))
            files.put_file(str(root / path), place)
    for path in there:
        if not (root / path).exists():
            remove(home / path)


@contextmanager
def downloaded(path: Path) -> Iterator[Path]:
    """A temporary folder with everything that the store has at a path of a working copy; other paths are themselves."""
    if url_of(path) is None:
        yield path
        return
    with TemporaryDirectory(prefix="overedit-") as name:
        folder = Path(name) / path.name
        folder.mkdir()
        fetch(path, folder)
        yield folder
