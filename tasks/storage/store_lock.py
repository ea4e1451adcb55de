"""A lock in an object store: an object that only one process can make, with its holder's name.

No system releases it when its holder is killed. A process on the same machine, that is with the same working copy,
takes it over then; on another machine somebody has to know that the holder is dead, and removes it by
`overedit unlock`. A lock of the file system beside it keeps out other processes of this machine.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from overedit.tasks.storage.stores import open_store
from overedit.tasks.storage.working_copy import read, remove, url_of
from overedit.tasks.system.locks import HeldError, check_free, file_lock, this_process
from overedit.tasks.system.untrusted import printable, shorten

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 2.0
_MARK = "\nworking copy "


@contextmanager
def store_lock(path: Path, what: str, *, wait: bool = False) -> Iterator[bool]:
    """Hold a lock of the store while the block runs.

    Args:
        path: The lock file, in a working copy.
        what: The name of the locked object in messages.
        wait: Wait until another holder has released it instead of raising `HeldError`.

    Yields:
        Whether it had to wait.

    Raises:
        HeldError: Another process holds it, or was killed on another machine while it did.
    """
    with file_lock(path, what, wait=wait) as had_to_wait:
        content = f"{this_process()}{_MARK}{_own_mark(path)}".encode()
        while not _taken(path, content):
            message = _in_words(path, what)
            if not wait:
                raise HeldError(message)
            if not had_to_wait:
                logger.warning("%s; waiting until it has ended", message)
            had_to_wait = True
            time.sleep(SECONDS_BETWEEN_LOOKS)
        try:
            yield had_to_wait
        finally:
            with suppress(FileNotFoundError):  # removed by hand
                if read(path) == content:
                    remove(path)


def check_store_lock(path: Path, what: str) -> None:
    """Check that a lock is free, or was held by a dead process of this machine; raises HeldError if not."""
    check_free(path, what)
    holder = store_holder(path)
    if holder is not None and not holder.endswith(_own_mark(path)):
        raise HeldError(_in_words(path, what))


def store_holder(path: Path) -> str | None:
    """The description of a lock's holder; None if the lock is free."""
    try:
        return read(path).decode(errors="replace")
    except FileNotFoundError:
        return None


def holder_in_words(path: Path) -> str:
    """The holder of a lock, for messages."""
    return printable(shorten((store_holder(path) or "another process").partition("\n")[0], 200))


def _in_words(path: Path, what: str) -> str:
    url, run = url_of(path.parents[2]), path.parent.name
    return (
        f"{what} is being worked on by {holder_in_words(path)}; wait until it has ended, or stop it; if it was killed "
        f"on another machine, its lock is left behind: overedit unlock {run} --home {url}"
    )


def _taken(path: Path, content: bytes) -> bool:
    """Make the lock's object; False if another process has made it."""
    url = url_of(path)
    assert url is not None
    files, place = open_store(url)
    try:
        files.pipe_file(place, content, mode="create")
        return True
    except FileExistsError:
        holder = store_holder(path)
    if holder is None:  # released meanwhile
        return _taken(path, content)
    if not holder.endswith(_own_mark(path)):
        return False
    logger.warning("took over the lock of a dead process of this machine: %s", holder_in_words(path))
    files.pipe_file(place, content)
    return True


def _own_mark(path: Path) -> str:
    """What tells this working copy from those of other machines, made at its first lock."""
    file = path.parents[2] / ".working-copy"
    file.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), file.open("x", encoding="utf-8") as stream:
        stream.write(uuid.uuid4().hex)
    return file.read_text(encoding="utf-8")
