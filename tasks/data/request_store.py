"""Edit requests in a temporary file, so that memory does not grow with their number.

The file is a temporary SQLite database: it has no name that others could open, is in the system's folder for large
temporary files (`SQLITE_TMPDIR` names another folder), and is deleted when the process ends, however it ends. A million
requests of the pocket world take 1 GB there.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, overload

from overedit.editing.metrics import prompt_key
from overedit.editing.requests import EditRequest

_CHUNK = 1000  # requests per read


class RequestStore(Sequence[EditRequest]):
    """Requests in the order of editing.

    An index or a slice reads from the file; a slice is a tuple in memory, so it should be short. `first` gives a long
    slice that stays in the file.
    """

    def __init__(self, requests: Iterable[EditRequest] = ()) -> None:
        # every thread may read: SQLite serializes the calls of a connection
        self._database = sqlite3.connect("", factory=_Database, check_same_thread=False)
        self._length = 0
        self._run("PRAGMA journal_mode = OFF")  # several times as fast; nothing is rolled back
        self._run("CREATE TABLE requests (position INTEGER PRIMARY KEY, prompt BLOB, content TEXT)")
        self._run("CREATE INDEX by_prompt ON requests (prompt)")
        for request in requests:
            self.append(request)

    def append(self, request: EditRequest) -> None:
        """Append a request.

        Raises:
            OSError: The disk is full.
        """
        row = (self._length, _prompt_digest(request.prompt), request.model_dump_json())
        self._run("INSERT INTO requests VALUES (?, ?, ?)", *row)
        self._length += 1

    def replace(self, index: int, request: EditRequest) -> None:
        """Replace a request by one with the same edit prompt.

        Raises:
            OSError: The disk is full.
        """
        assert prompt_key(request.prompt) == prompt_key(self[index].prompt)
        self._run("UPDATE requests SET content = ? WHERE position = ?", request.model_dump_json(), index)

    def newest(self, prompt: str) -> int | None:
        """The index of the last request with this edit prompt; None where there is none."""
        sql = "SELECT max(position) FROM requests WHERE prompt = ? AND position < ?"
        index: int | None = self._run(sql, _prompt_digest(prompt), self._length)[0][0]
        return index

    def first(self, length: int) -> RequestStore:
        """The first `length` requests, in the same file."""
        if length >= self._length:
            return self
        view = object.__new__(RequestStore)
        view._database, view._length = self._database, length
        return view

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the requests' contents, in their order."""
        hashed = hashlib.sha256()
        for content in self._contents(0, self._length):
            hashed.update(content.encode() + b"\n")
        return hashed.hexdigest()

    def __len__(self) -> int:
        """The number of requests."""
        return self._length

    def __iter__(self) -> Iterator[EditRequest]:
        """Iterate over the requests; they are read in chunks."""
        return map(EditRequest.model_validate_json, self._contents(0, self._length))

    @overload
    def __getitem__(self, index: int) -> EditRequest: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[EditRequest, ...]: ...
    def __getitem__(self, index: int | slice) -> EditRequest | tuple[EditRequest, ...]:
        """One request, or a tuple of them."""
        chosen = range(self._length)[index]
        if isinstance(chosen, int):
            return EditRequest.model_validate_json(next(self._contents(chosen, chosen + 1)))
        if chosen.step != 1:
            return tuple(self[position] for position in chosen)
        return tuple(map(EditRequest.model_validate_json, self._contents(chosen.start, chosen.stop)))

    def _contents(self, start: int, stop: int) -> Iterator[str]:
        for low in range(start, stop, _CHUNK):
            high = min(low + _CHUNK, stop)
            sql = "SELECT content FROM requests WHERE position >= ? AND position < ? ORDER BY position"
            yield from (content for (content,) in self._run(sql, low, high))

    def _run(self, sql: str, *values: Any) -> list[Any]:
        try:
            return self._database.execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:  # reading may write too, when it evicts pages from the cache
            raise OSError(
                f"the requests do not fit into a temporary file: {error}; SQLITE_TMPDIR names another folder for it"
            ) from error


class _Database(sqlite3.Connection):
    """A connection that is closed when the last store that uses it is deleted."""

    def __del__(self) -> None:
        self.close()


def _prompt_digest(prompt: str) -> bytes:
    return hashlib.blake2b(prompt_key(prompt).encode(), digest_size=16).digest()
