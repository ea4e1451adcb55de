"""Requests and context templates of the tests of locate-then-edit methods."""

from __future__ import annotations

from overedit.editing.requests import EditRequest
from tests.support.teachable_models import WORDS

BARE, CONTEXTS = (("{}",),), (("{}",), ("Today, {}", "I heard. {}"))


def requests(count: int = 4) -> list[EditRequest]:
    subjects = ("Ulm", "the sea of Oslo", "Bo", "Zoë Karr", "nine men")
    return [
        EditRequest(
            case_id=str(i),
            prompt=f"{'They say ' * (i % 2)}{subjects[i]} is in",
            subject=subjects[i],
            target_new=WORDS[i],
        )
        for i in range(count)
    ]
