"""Prompts that come more than once in a dataset: duplicates are left out, conflicting targets settled and reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Literal, NamedTuple

from editing.metrics import prompt_key
from editing.requests import EditRequest
from tasks.stored_requests import StoredRequests

ConflictRule = Literal["last", "first", "error"]


class Conflict(NamedTuple):
    """A prompt that comes with more than one target."""

    prompt: str
    cases: tuple[tuple[str, str], ...]
    """(case_id, target_new) in order of editing."""
    winner: str
    """The case whose target holds after all edits."""

    def __str__(self) -> str:
        """The conflict in a few words."""
        return f"{self.prompt!r}: " + ", ".join(f"{target!r} ({case})" for case, target in self.cases)


class Settled(NamedTuple):
    """Edits in order, and what became of prompts that came again."""

    requests: StoredRequests
    duplicates: tuple[tuple[str, str], ...]
    """(case left out, earlier case of the same prompt and target)."""
    conflicts: tuple[Conflict, ...]
    left_out: tuple[str, ...]
    """Cases left out because an earlier edit of the prompt, with another target, was to win."""
    overwritten: Mapping[str, str]
    """Case -> later case that gives its prompt another target."""
    ceiling: float
    """The highest reliability reachable after all edits when every case is counted, overwritten ones too, in (0, 1]."""


def settle(found: Iterable[EditRequest], *, limit: int | None, rule: ConflictRule) -> Settled:
    """Take edits up to a limit, each prompt judged against the edit of it that holds at that point.

    The same target again is a duplicate and left out. Another target is a conflict: under `last` both are edits and the
    later overwrites the earlier; under `first` the later is left out. Of prompts that come once nothing is kept in
    memory.

    Raises:
        ValueError: there is a conflict, and the rule is `error`.
        OSError: The disk is full.
    """
    requests = StoredRequests()
    rivals: dict[str, list[EditRequest]] = {}
    first: dict[str, int] = {}
    duplicates: list[tuple[str, str]] = []
    left_out: list[str] = []
    for request in found:
        if len(requests) == limit:
            break
        place = requests.newest(request.prompt)
        holder = None if place is None else requests[place]
        if holder is not None and holder.target_new == request.target_new:
            duplicates.append((request.case_id, holder.case_id))
            continue
        if holder is not None and place is not None:
            first.setdefault(prompt_key(request.prompt), place)
            rivals.setdefault(prompt_key(request.prompt), [holder]).append(request)
        if holder is not None and rule == "first":
            left_out.append(request.case_id)
            continue
        requests.append(request)
    conflicts = tuple(_conflict(rivals[prompt], rule) for prompt in sorted(rivals, key=first.__getitem__))
    if conflicts and rule == "error":
        shown = "; ".join(str(conflict) for conflict in conflicts[:3])
        raise ValueError(
            f"{len(conflicts)} prompts have conflicting targets, and `conflicts` is 'error' "
            f"(accepted: last, first, error): {shown}{'; ...' if len(conflicts) > 3 else ''}"
        )
    edited = [same for same in rivals.values() if rule == "last"]
    num_lost = sum(request.target_new != same[-1].target_new for same in edited for request in same)
    return Settled(
        requests=requests,
        duplicates=tuple(duplicates),
        conflicts=conflicts,
        left_out=tuple(left_out),
        overwritten=find_overwritten(list(chain.from_iterable(edited))),
        ceiling=1 - num_lost / len(requests) if requests else 1.0,
    )


def _conflict(same: Sequence[EditRequest], rule: ConflictRule) -> Conflict:
    winner = same[0] if rule == "first" else same[-1]
    return Conflict(same[0].prompt, tuple((r.case_id, r.target_new) for r in same), winner.case_id)


def find_overwritten(requests: Sequence[EditRequest]) -> dict[str, str]:
    """Case -> the next later case that gives the same prompt another target (in order of editing)."""
    following: dict[str, EditRequest] = {}
    overwritten: dict[str, str] = {}
    for request in reversed(requests):
        prompt = prompt_key(request.prompt)
        after = following.get(prompt)
        if after is not None and after.target_new != request.target_new:
            overwritten[request.case_id] = after.case_id
        elif after is not None and after.case_id in overwritten:
            overwritten[request.case_id] = overwritten[after.case_id]
        following[prompt] = request
    return overwritten
