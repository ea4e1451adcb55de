"""The kinds of fault: each begins a run in an empty home, and disturbs it at a place drawn from a seed."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable

from tests.faults.attempts import FAILED, STOPPED, Bench, attempt
from tests.faults.comparison import made
from tests.faults.fault_points import WRITING, Hit, Point, Points, kill, no_space, terminate

Inflict = Callable[[Bench, random.Random], tuple[str, list[str]]]
"""Begins a run in an empty home and disturbs it -> what was done, and what was wrong already."""


def killed_while(*phases: str) -> Inflict:
    """Killed at a point of some phases."""

    def inflict(bench: Bench, draw: random.Random) -> tuple[str, list[str]]:
        hit = draw_hit(bench, draw, lambda point: point.phase in phases)
        status = attempt(bench, Points(bench.home, hit, kill))
        return f"killed at {shown(hit)}", expect(status, -signal.SIGKILL)

    return inflict


def killed_at_a_moment(bench: Bench, draw: random.Random) -> tuple[str, list[str]]:
    """Killed by the clock, wherever it is."""
    seconds = draw.uniform(0, bench.seconds)
    attempt(bench, killed_after=seconds)
    return f"killed after {seconds:.3f} s", []


def torn(bench: Bench, draw: random.Random) -> tuple[str, list[str]]:
    """Killed when a share of a file is on the disk."""
    hit = draw_hit(bench, draw, lambda point: point.operation in ("flush", "tensors"))
    share = draw.choice((0.0, draw.random()))
    status = attempt(bench, Points(bench.home, hit, kill, torn=share))
    return f"killed at {shown(hit)}, {share:.0%} of the file written", expect(status, -signal.SIGKILL)


def terminated(bench: Bench, draw: random.Random) -> tuple[str, list[str]]:
    """GenerationSettings to stop."""
    hit = draw_hit(bench, draw, lambda point: True)
    status = attempt(bench, Points(bench.home, hit, terminate))
    return f"SIGTERM at {shown(hit)}", expect(status, STOPPED, -signal.SIGTERM)


def full(bench: Bench, draw: random.Random) -> tuple[str, list[str]]:
    """From some write on, the disk is full."""
    hit = draw_hit(bench, draw, lambda point: point.operation in WRITING)
    begun = bench.log.stat().st_size
    status = attempt(bench, Points(bench.home, hit, no_space, lasts=True))
    mistakes = expect(status, FAILED)
    if "No space left on device" not in bench.log.read_text()[begun:]:
        mistakes.append("the error does not say that the disk is full")
    return f"no space from {shown(hit)} on", mistakes + [f"left behind: {name}" for name in made(bench.home).temporary]


def damaged(damage: Callable[[bytes, random.Random], bytes | None]) -> Inflict:
    """A file of a run that is complete, or of one that was killed, is not what was written."""

    def inflict(bench: Bench, draw: random.Random) -> tuple[str, list[str]]:
        where = "a complete run"
        if draw.random() < 0.5:
            shutil.copytree(bench.whole, bench.home)
        else:
            where, _ = killed_at_a_moment(bench, draw)
        files = [p for part in ("runs", "warehouse") for p in sorted((bench.home / part).rglob("*")) if p.is_file()]
        if not files:
            return f"nothing to damage, {where}", []
        path = draw.choice(files)
        content = damage(path.read_bytes(), draw)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        return f"{path.relative_to(bench.home)} of {where}", []

    return inflict


def flipped(content: bytes, draw: random.Random) -> bytes:
    """One bit of it is another."""
    place = draw.randrange(max(len(content), 1))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :] if content else b""


def cut(content: bytes, draw: random.Random) -> bytes:
    """Its end is missing, or all of it."""
    return content[: draw.choice((0, draw.randrange(max(len(content), 1))))]


def removed(content: bytes, draw: random.Random) -> None:
    """It is gone."""


KINDS: dict[str, Inflict] = {
    "kill -9 while editing": killed_while("editing"),
    "kill -9 while checkpointing": killed_while("checkpointing"),
    "kill -9 while swapping": killed_while("swapping"),
    "kill -9 while scoring": killed_while("scoring"),
    "kill -9 while writing rows": killed_while("warehouse writing"),
    "kill -9 while reporting": killed_while("reporting"),
    "kill -9 by the clock": killed_at_a_moment,
    "torn file": torn,
    "SIGTERM": terminated,
    "full disk": full,
    "flipped bit": damaged(flipped),
    "cut file": damaged(cut),
    "removed file": damaged(removed),
}


def draw_hit(bench: Bench, draw: random.Random, wanted: Callable[[Point], bool]) -> Hit:
    """A point of those wanted, and which time it is passed."""
    points = sorted(point for point in bench.passes if wanted(point))
    point = draw.choice(points)
    return Hit(point, draw.randint(1, bench.passes[point]))


def shown(hit: Hit) -> str:
    """A hit in words."""
    return f"{hit.point.phase}, {hit.point.operation} {hit.number}"


def expect(status: int, *accepted: int) -> list[str]:
    """What is wrong with how an attempt ended."""
    return [] if status in accepted else [f"the disturbed attempt ended with {status}, not {accepted}"]
