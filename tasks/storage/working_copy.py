"""The working copy of a home in an object store: a local folder, which is synchronized with the store.

Checkpoints are written and read on the local disk. The working copy is the subfolder of the cache that is named after
the URL, `<cache>/homes/s3%3A%2F%2Fbucket%2Fresults`. So a path in it says which object it stands for, whoever has it,
and a path elsewhere is an ordinary one, with which nothing is synchronized. The store is the truth: a working copy may
be removed at any time, and what the store does not have, `pull` removes from it.

A checkpoint is whole in the store once it has its `checkpoint.json`, which is put last and removed first.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote

from fsspec import AbstractFileSystem

from overedit.editing.storage import atomic
from overedit.tasks.storage.stores import as_url, open_store, url_fault
from overedit.tasks.system.cache import cache_folder
from overedit.tasks.system.untrusted import shown_value, without_credentials

logger = logging.getLogger(__name__)

RECORD = "checkpoint.json"
_COPY = re.compile(r"[a-z][a-z0-9+.-]*%3A%2F%2F.+")


def local_home(home: str | Path, key: str = "home") -> Path:
    """The local folder of a home: itself, or the working copy of a URL.

    Args:
        home: A folder or a URL.
        key: What messages call it.

    Raises:
        ValueError: A URL that is not accepted.
    """
    if (url := as_url(home)) is None:
        return Path(home)
    if (fault := url_fault(url)) is not None:
        raise ValueError(f"{key}: {shown_value(without_credentials(url))} is {fault}")
    return cache_folder("homes") / quote(url, safe="")


def url_of(path: Path) -> str | None:
    """The URL for which a path in a working copy stands; None for any other path."""
    for position, part in enumerate(path.parts):
        if _COPY.fullmatch(part):
            return "/".join([unquote(part), *path.parts[position + 1 :]])
    return None


def shown_path(path: Path) -> str:
    """A path as users know it: the URL, where it is in a working copy."""
    return url_of(path) or str(path)


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder, in the store for a path in a working copy."""
    if (url := url_of(path)) is None:
        return path.exists()
    files, place = open_store(url)
    return bool(files.exists(place))


def is_folder(path: Path) -> bool:
    """Whether there is such a folder, in the store for a path in a working copy."""
    if (url := url_of(path)) is None:
        return path.is_dir()
    files, place = open_store(url)
    return bool(files.isdir(place))


def sizes(path: Path) -> dict[str, int]:
    """The objects for which a folder of a working copy stands: path below it -> bytes.

    Objects whose names would lead out of a folder are left out; Overedit writes none.
    """
    files, place = open_store(_known(path))
    found = {name[len(place) + 1 :]: info["size"] or 0 for name, info in files.find(place, detail=True).items()}
    return {name: found[name] for name in sorted(found) if not {"", ".", ".."} & set(name.split("/"))}


def tags(folder: Path) -> dict[str, str]:
    """The objects in a folder of a working copy: path below it -> a text that changes with the object."""
    files, place = open_store(_known(folder))
    found = files.find(place, detail=True)
    return {name[len(place) + 1 :]: _tag(info) for name, info in sorted(found.items())}


def _tag(info: dict[str, Any]) -> str:
    content = next((info[name] for name in ("ETag", "md5Hash", "etag", "created") if info.get(name)), "")
    return f"{info['size']} {content}"


def read(path: Path) -> bytes:
    """The content of an object; raises FileNotFoundError if there is none."""
    files, place = open_store(_known(path))
    return bytes(files.cat_file(place))


def fetch(path: Path, to: Path) -> None:
    """Copy everything that the store has at a path of a working copy to a local folder."""
    files, place = open_store(_known(path))
    for name in sizes(path):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        files.get_file(f"{place}/{name}", str(to / name))


def remove(path: Path) -> None:
    """Remove an object of the store; raises FileNotFoundError if there is none."""
    files, place = open_store(_known(path))
    files.rm_file(place)


def sync(path: Path) -> None:
    """Make the store have what a working copy has at a path: a file, a folder, or nothing; elsewhere do nothing."""
    if (url := url_of(path)) is None:
        return
    files, place = open_store(url)
    if path.is_file():
        files.put_file(str(path), place)
    elif path.is_dir():
        _put_folder(files, path, place)
    else:
        for name in sorted(files.find(place), key=lambda name: not name.endswith(f"/{RECORD}")):
            files.rm_file(name)


@contextmanager
def replace_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a stream for a file's new content, as `editing.storage.atomic.replace_file` does, and put it in the store.

    Raises:
        NoSpaceError: The disk is full; the old content is untouched.
        OSError: The store did not take it; the old content is there.
    """
    with atomic.replace_file(path) as stream:
        yield stream
    sync(path)


def pull_file(path: Path) -> None:
    """Make a working copy have a file as the store has it, or not have it; elsewhere do nothing."""
    if url_of(path) is None:
        return
    try:
        content = read(path)
    except FileNotFoundError:
        path.unlink(missing_ok=True)
        return
    with atomic.replace_file(path) as stream:
        stream.write(content)


def pull(folder: Path) -> None:
    """Make a working copy have the whole checkpoints that the store has in a folder or below it, and no others.

    Those that are the same already are not copied: their records, which have the checksums of their tensors, are equal.
    Elsewhere this does nothing.
    """
    if (url := url_of(folder)) is None:
        return
    files, place = open_store(url)
    there: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for path, size in sizes(folder).items():
        below, _, name = path.rpartition("/")
        there[below][name] = size
    whole = {folder / below: names for below, names in there.items() if RECORD in names}
    for record in sorted(folder.rglob(RECORD)):
        if record.parent not in whole:
            shutil.rmtree(record.parent)
    for checkpoint, names in whole.items():
        source = f"{place}/{checkpoint.relative_to(folder)}".removesuffix("/.")
        if not _is_same(files, checkpoint, source, names):
            with atomic.replace_folder(checkpoint) as temporary:
                for name in names:
                    files.get_file(f"{source}/{name}", str(temporary / name))
            logger.info("copied from the store: %s", shown_path(checkpoint))


def _put_folder(files: AbstractFileSystem, folder: Path, place: str) -> None:
    here = _local_sizes(folder)
    there = sizes(folder)
    if _is_same(files, folder, place, there):
        return
    if RECORD in there:  # whoever reads meanwhile must not take new tensors for the old ones
        files.rm_file(f"{place}/{RECORD}")
    for name in sorted(here, key=lambda name: name == RECORD):
        files.put_file(str(folder / name), f"{place}/{name}")
    for name in there.keys() - here.keys() - {RECORD}:
        files.rm_file(f"{place}/{name}")


def _is_same(files: AbstractFileSystem, folder: Path, place: str, there: dict[str, int]) -> bool:
    """Whether a folder has the files of a checkpoint in the store, and the same record."""
    if RECORD not in there or there != _local_sizes(folder):
        return False
    return bool(files.cat_file(f"{place}/{RECORD}") == (folder / RECORD).read_bytes())


def _local_sizes(folder: Path) -> dict[str, int]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def _known(path: Path) -> str:
    url = url_of(path)
    assert url is not None, f"{path} is in no working copy"
    return url
