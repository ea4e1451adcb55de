"""Requests in a temporary file are the requests that were put there."""

from __future__ import annotations

import contextlib
import gc
import threading
from pathlib import Path

import pytest

from overedit.editing.requests import EditRequest, Probe
from overedit.tasks.data.request_store import RequestStore
from overedit.tasks.pocket_world.world import default_world

REQUESTS = tuple(default_world().edits(2500))


@pytest.fixture(scope="module")
def stored() -> RequestStore:
    return RequestStore(REQUESTS)


def test_one_some_and_all(stored: RequestStore) -> None:
    assert len(stored) == 2500
    assert tuple(stored) == REQUESTS
    assert (stored[0], stored[1999], stored[-1]) == (REQUESTS[0], REQUESTS[1999], REQUESTS[-1])
    assert stored[990:2010] == REQUESTS[990:2010]
    assert stored[-3:] == REQUESTS[-3:]
    assert stored[10:0:-3] == REQUESTS[10:0:-3]
    assert stored[7:7] == ()
    with pytest.raises(IndexError):
        stored[2500]


def test_every_text_comes_back() -> None:
    odd = EditRequest(
        case_id="'); DROP TABLE requests",
        prompt='a\x00b "é" \N{GRINNING FACE}\n',
        target_new=" x ",
        target_true="",
        rephrase_prompts=("", "p"),
        locality=(Probe(prompt="q"), Probe(prompt="q", answer="")),
    )
    assert tuple(RequestStore([odd])) == (odd,)


def test_the_first_are_a_view_with_a_digest_of_their_own(stored: RequestStore) -> None:
    first = stored.first(1500)
    assert (len(first), tuple(first)) == (1500, REQUESTS[:1500])
    assert first.digest == RequestStore(REQUESTS[:1500]).digest != stored.digest
    assert stored.first(9999) is stored
    with pytest.raises(IndexError):
        first[1500]
    swapped = RequestStore([*REQUESTS[1::-1], *REQUESTS[2:1500]])
    assert swapped.digest != first.digest, "the order counts"


def test_the_newest_of_a_prompt(stored: RequestStore) -> None:
    requests = [EditRequest(case_id=str(i), prompt=p, target_new="t") for i, p in enumerate(("p", "q", "p  ", "r"))]
    found = RequestStore(requests)
    assert [found.newest(prompt) for prompt in ("p", " p", "q", "none")] == [2, 2, 1, None]
    assert found.first(2).newest("p") == 0
    assert [stored.newest(request.prompt) for request in REQUESTS[::500]] == list(range(0, 2500, 500))


def test_another_thread_reads_them(stored: RequestStore) -> None:
    read: list[tuple[EditRequest, ...]] = []
    threads = [threading.Thread(target=lambda: read.append(tuple(stored))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [REQUESTS] * 3


def test_the_file_has_no_name_and_goes_with_the_last_view() -> None:
    before = _nameless_files()
    many = (request.model_copy(update={"case_id": str(i)}) for i in range(4) for request in REQUESTS)
    view = RequestStore(many).first(10)
    gc.collect()
    assert len(_nameless_files() - before) == 1
    assert tuple(view) == tuple(request.model_copy(update={"case_id": "0"}) for request in REQUESTS[:10])
    del view
    gc.collect()
    assert _nameless_files() == before


def _nameless_files() -> set[str]:
    """SQLite's temporary files that this process holds open; they are removed as soon as they are made."""
    names = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder's own
            names.add(str(entry.readlink()))
    return {name for name in names if "etilqs" in name and name.endswith("(deleted)")}


def test_a_full_disk_is_an_error_that_says_so() -> None:
    stored = RequestStore(REQUESTS[:100])
    stored._database.execute("PRAGMA max_page_count = 50")
    with pytest.raises(OSError, match=r"do not fit into a temporary file: .*is full; SQLITE_TMPDIR names another"):
        for request in REQUESTS:
            stored.append(request)
