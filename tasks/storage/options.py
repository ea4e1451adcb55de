"""The configuration key of where results are: a folder, or a URL in an object store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from overedit.tasks.storage.stores import as_url, url_fault
from overedit.tasks.storage.working_copy import local_home, shown_path


def _folder_of(home: Any) -> Any:
    """Take the working copy of a URL, of which `Path` would make a folder `s3:`."""
    if not isinstance(home, str | Path) or (url := as_url(home)) is None:
        return home
    if (fault := url_fault(url)) is not None:
        raise ValueError(fault)
    return local_home(url)


Home = Annotated[Path, BeforeValidator(_folder_of), PlainSerializer(shown_path, return_type=str, when_used="json")]
"""A folder; of a URL its working copy, which is written as the URL again."""
