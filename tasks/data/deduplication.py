"""Removes duplicate edits from a dataset, and resolves and reports prompts with conflicting targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Literal, NamedTuple

from overedit.editing.metrics import prompt_key
from overedit.editing.requests import EditRequest
from overedit.tasks.data.request_store import RequestStore

ConflictRule = Literal["last", "first", "error"]


class Conflict(NamedTuple):
    """A prompt that occurs with more than one target."""

    prompt: str
    cases: tuple[tuple[str, str], ...]
    """(case_id, target_new) in order of editing."""
    winner: str
    """The case whose target is in force after all edits."""

    def __str__(self) -> str:
        """The prompt with its targets and their cases."""
        return f"{self.prompt!r}: " + ", ".join(f"{target!r} ({case})" for case, target in self.cases)


class Deduplicated(NamedTuple):
    """Edits in order, and the duplicates and conflicts among them."""

    requests: RequestStore
    num_without_target: int
    """Rows without a new answer, which are left out; only some datasets have such."""
    duplicates: tuple[tuple[str, str], ...]
    """(case left out, earlier case of the same prompt and target)."""
    conflicts: tuple[Conflict, ...]
    left_out: tuple[str, ...]
    """Cases left out because `conflicts: first` keeps the earlier target of their prompt."""
    overwritten: Mapping[str, str]
    """Case -> later case that gives its prompt another target."""
    ceiling: float
    """The highest reliability reachable after all edits when every case is counted, overwritten ones too, in (0, 1]."""


def deduplicate(found: Iterable[Sequence[EditRequest]], *, limit: int | None, rule: ConflictRule) -> Deduplicated:
    """Take edits up to a limit; each is compared with the edit of the same prompt that is in force at that point.

    An edit with the same target is a duplicate and is left out. Another target is a conflict: under `last` both are
    edits and the later overwrites the earlier; under `first` the later is left out. Memory grows only with the prompts
    that occur more than once.

    Portability prompts need all edits of their row. If the row's last edit is a duplicate, they are moved to the newest
    edit of one of the row's facts; if one of its facts was left out, they are dropped.

    Args:
        found: The edits of each row of the dataset, in order of editing.
        limit: The most edits that are taken; None takes all.
        rule: How conflicts are resolved.

    Raises:
        ValueError: There is a conflict and the rule is `error`.
        OSError: The disk is full.
    """
    deduplication = _Deduplication(rule)
    for row in found:
        if len(deduplication.requests) == limit:
            break
        deduplication.take(row, limit)
    requests, rivals = deduplication.requests, deduplication.rivals
    conflicts = tuple(_conflict(rivals[prompt], rule) for prompt in sorted(rivals, key=deduplication.first.__getitem__))
    if conflicts and rule == "error":
        shown = "; ".join(str(conflict) for conflict in conflicts[:3])
        raise ValueError(
            f"{len(conflicts)} prompts have conflicting targets, and `conflicts` is 'error' "
            f"(accepted: last, first, error): {shown}{'; ...' if len(conflicts) > 3 else ''}"
        )
    edited = [same for same in rivals.values() if rule == "last"]
    num_lost = sum(request.target_new != same[-1].target_new for same in edited for request in same)
    return Deduplicated(
        requests=requests,
        num_without_target=deduplication.num_without_target,
        duplicates=tuple(deduplication.duplicates),
        conflicts=conflicts,
        left_out=tuple(deduplication.left_out),
        overwritten=find_overwritten(list(chain.from_iterable(edited))),
        ceiling=1 - num_lost / len(requests) if requests else 1.0,
    )


class _Deduplication:
    """The edits taken so far, and their duplicates and conflicts."""

    def __init__(self, rule: ConflictRule) -> None:
        self.rule = rule
        self.requests = RequestStore()
        self.rivals: dict[str, list[EditRequest]] = {}
        self.first: dict[str, int] = {}
        self.duplicates: list[tuple[str, str]] = []
        self.left_out: list[str] = []
        self.num_without_target = 0

    def take(self, row: Sequence[EditRequest], limit: int | None) -> None:
        """Take the edits of a row, up to the limit."""
        self.num_without_target += not row
        before = len(self.requests)
        positions: list[int | None] = []
        for request in row:
            if len(self.requests) == limit:
                return
            positions.append(self._take(request))
        if row and row[-1].portability and len(self.requests) - before < len(row):
            self._move_portability(row[-1], positions)

    def _take(self, request: EditRequest) -> int | None:
        """Take an edit; returns the index of the edit that has its fact, None if the edit was left out."""
        index = self.requests.newest(request.prompt)
        holder = None if index is None else self.requests[index]
        if holder is not None and holder.target_new == request.target_new:
            self.duplicates.append((request.case_id, holder.case_id))
            return index
        if holder is not None and index is not None:
            self.first.setdefault(prompt_key(request.prompt), index)
            self.rivals.setdefault(prompt_key(request.prompt), [holder]).append(request)
        if holder is not None and self.rule == "first":
            self.left_out.append(request.case_id)
            return None
        self.requests.append(request)
        return len(self.requests) - 1

    def _move_portability(self, last: EditRequest, positions: Sequence[int | None]) -> None:
        """Move or drop the portability prompts of a row (those of its last edit) of which not all edits were taken."""
        held = [position for position in positions if position is not None]
        if not held:
            return
        newest = self.requests[max(held)]
        if len(held) == len(positions):
            portability = tuple(dict.fromkeys((*newest.portability, *last.portability)))
        else:
            portability = () if newest.case_id == last.case_id else newest.portability
        if portability != newest.portability:
            self.requests.replace(max(held), newest.model_copy(update={"portability": portability}))


def _conflict(same: Sequence[EditRequest], rule: ConflictRule) -> Conflict:
    winner = same[0] if rule == "first" else same[-1]
    return Conflict(same[0].prompt, tuple((r.case_id, r.target_new) for r in same), winner.case_id)


def find_overwritten(requests: Sequence[EditRequest]) -> dict[str, str]:
    """Map each case to the next later case that gives the same prompt another target.

    Args:
        requests: In the order of editing.
    """
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
