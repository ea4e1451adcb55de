"""The digest of a model folder's weights; weight files that have not changed since the last digest are not read again.

The cache folder keeps one record a model folder, `weights/<digest of its path>.json`: the size, the modification time
and the SHA-256 of every file. A file whose size or time differs from the record is read and digested anew.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from overedit.editing.storage.atomic import replace_file
from overedit.editing.storage.checksums import digest, file_sha256
from overedit.tasks.system.cache import cache_folder

logger = logging.getLogger(__name__)


class FileDigest(BaseModel):
    """A file's SHA-256, and what tells whether the file has changed since."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read a whole file; a change while it is read makes the record's time the older one, so it is read again."""
        status = path.stat()
        return cls(size=status.st_size, mtime_ns=status.st_mtime_ns, sha256=file_sha256(path))

    def is_current(self, path: Path) -> bool:
        """Whether the file still has the recorded size and modification time."""
        status = path.stat()
        return (self.size, self.mtime_ns) == (status.st_size, status.st_mtime_ns)


class FolderDigests(BaseModel):
    """The digests of a model folder's files, as the cache keeps them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    """Resolved path of the model folder."""
    files: dict[str, FileDigest]
    """File name -> its digest."""


def folder_digest(folder: Path) -> str:
    """SHA-256 over the weight files and the configuration of a model folder, hex.

    Args:
        folder: A Hugging Face model folder with safetensors (or pickled) weights and a `config.json`.

    Raises:
        OSError: A file cannot be read. A cache that cannot be read or written is not an error.
    """
    folder = folder.resolve()
    paths = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin"), folder / "config.json"])
    record = cache_folder("weights") / f"{digest(str(folder))}.json"
    known = _read(record)
    current = {
        path.name: known[path.name] if path.name in known and known[path.name].is_current(path) else FileDigest.of(path)
        for path in paths
    }
    if current != known:
        _write(record, FolderDigests(folder=str(folder), files=current))
    whole = hashlib.sha256()
    for name, file in current.items():
        whole.update(f"{name}={file.sha256};".encode())
    return whole.hexdigest()


def _read(record: Path) -> dict[str, FileDigest]:
    try:
        return FolderDigests.model_validate_json(record.read_bytes()).files
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        logger.warning("the weights are digested anew: %s cannot be read: %s", record, error)
        return {}


def _write(record: Path, digests: FolderDigests) -> None:
    try:
        with replace_file(record) as stream:
            stream.write(digests.model_dump_json().encode())
    except OSError as error:
        logger.warning("the digests of the weights could not be cached: %s", error)
