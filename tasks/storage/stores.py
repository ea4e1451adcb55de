"""Object stores: which URLs name one, and how it is opened. Credentials come from the environment, never from a URL."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import MappingProxyType

import fsspec
from fsspec import AbstractFileSystem

EXTRAS = MappingProxyType({"s3": "s3", "gs": "gcs", "memory": ""})
"""Protocol -> Overedit's extra that brings its package. `memory` is the memory of this process, for tests."""

ACCEPTED = "a folder, or a URL such as s3://BUCKET/FOLDER or gs://BUCKET/FOLDER"

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?:/+(.*))?", re.DOTALL)  # `Path` makes s3: of s3://
_LONGEST = 150  # characters of a URL, which becomes the name of a folder
_FOREIGN_ERRORS = (("botocore.exceptions", "BotoCoreError"), ("google.auth.exceptions", "GoogleAuthError"))


def as_url(where: str | Path) -> str | None:
    """A place as a URL without a slash at its end, also where `Path` has left one slash of two; None for a folder."""
    found = _URL.fullmatch(str(where))
    return f"{found[1].lower()}://{(found[2] or '').strip('/')}" if found else None


def url_fault(url: str) -> str | None:
    """What is wrong with the URL of a store, and what is accepted; None if nothing is wrong. It has no secrets."""
    protocol, _, rest = url.partition("://")
    bucket = rest.partition("/")[0]
    if protocol not in EXTRAS:
        return f"a URL of {protocol!r}; accepted: {ACCEPTED}"
    if "@" in bucket:
        return "a URL with credentials, which belong into environment variables such as AWS_ACCESS_KEY_ID"
    if not bucket or len(url) > _LONGEST or re.search(r"[\x00-\x20?#*\[\]]|//|/\.{1,2}(/|$)", rest):
        return (
            f"no place for results; accepted: {ACCEPTED}, of up to {_LONGEST} characters without spaces, ?, #, * or ["
        )
    return None


def open_store(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a store, and the URL's path in it; nothing is asked of the store yet.

    Raises:
        ValueError: The package that it needs is not installed.
    """
    try:
        files, path = fsspec.core.url_to_fs(url, use_listings_cache=False)  # other machines write there too
    except ImportError as error:
        extra = EXTRAS.get(url.partition("://")[0])
        how = f"pip install 'overedit[{extra}]'" if extra else str(error)
        raise ValueError(f"{url} needs a package that is not installed: {how}") from error
    return files, path.rstrip("/")


def check_reachable(url: str) -> None:
    """Check that a store answers, and lets this process list the URL.

    Raises:
        ValueError: A package is missing.
        OSError: There is no such bucket, no permission, no credentials, or no answer.
    """
    files, path = open_store(url)
    bucket = path.lstrip("/").partition("/")[0]
    errors: tuple[type[BaseException], ...] = (OSError, *foreign_errors())
    try:
        if not files.exists(bucket) and not url.startswith("memory:"):
            raise FileNotFoundError("there is no such bucket, or it may not be listed")
        files.find(path, maxdepth=1)
    except errors as error:
        raise OSError(f"{url} cannot be used: {' '.join(str(error).split()) or type(error).__name__}") from error


def foreign_errors() -> tuple[type[BaseException], ...]:
    """The errors of stores' own libraries that are no `OSError`, of those libraries that are imported."""
    return tuple(getattr(sys.modules[module], name) for module, name in _FOREIGN_ERRORS if module in sys.modules)
