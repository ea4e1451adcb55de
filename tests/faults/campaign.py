"""A campaign of faults: `python -m tests.faults.campaign --faults 200 --seed 0`.

A small real run is made once, undisturbed. Then, fault by fault, it is begun in a process that is killed, terminated,
starved of disk or whose files are damaged at a place drawn from the seed; the same run is made again over what is left,
and must end with the same checkpoints, byte for byte, and the same rows. One process imports everything and forks an
attempt after the other; it starts no threads, and does not use torch itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from rich.console import Console
from rich.table import Table

from editing.interim import StoppedError
from flows.config import BenchmarkConfig
from tests.faults.comparison import Made, differences, made
from tests.faults.fault_points import WRITING, Hit, Point, Points, kill, no_space, terminate
from tests.faults.small_run import configuration, run, warm_up, write_inputs
from tests.tiny_llama import write_tiny_llama

ENDED, FAILED, STOPPED, BROKEN = 0, 1, 130, 70


class Bench(NamedTuple):
    """What every fault is tried on."""

    folder: Path
    config: BenchmarkConfig
    wanted: Made
    """Of the undisturbed run."""
    passes: dict[Point, int]
    """How often the undisturbed run passes each point."""
    seconds: float
    """What the undisturbed run takes."""

    @property
    def home(self) -> Path:
        """Where attempts are made; the same for all, since rows name it."""
        return self.config.home

    @property
    def whole(self) -> Path:
        """A copy of the undisturbed run."""
        return self.folder / "whole"

    @property
    def log(self) -> Path:
        """What the attempts said."""
        return self.folder / "log.txt"


class Fault(NamedTuple):
    """One of the campaign."""

    number: int
    kind: str
    text: str
    """What was done, in words."""
    mistakes: list[str]
    seconds: float


Inflict = Callable[[Bench, random.Random], tuple[str, list[str]]]
"""Begins a run in an empty home and disturbs it -> what was done, and what was wrong already."""


def prepare(folder: Path) -> Bench:
    """Make the undisturbed run."""
    inputs, home = folder / "inputs", folder / "home"
    write_inputs(inputs)
    write_tiny_llama(folder / "model")
    config = configuration(home, inputs, folder / "model")
    warm_up(config.capability)
    bench = Bench(folder, config, Made({}, {}, ()), {}, 0.0)
    begun = time.perf_counter()
    status = attempt(bench, Points(home), count_in=folder / "passes.json")
    seconds = time.perf_counter() - begun
    if status != ENDED:
        raise RuntimeError(f"the undisturbed run ended with {status}:\n{bench.log.read_text()[-4000:]}")
    passes = {Point(*name.split("/")): n for name, n in json.loads((folder / "passes.json").read_text()).items()}
    shutil.copytree(home, bench.whole)
    return bench._replace(wanted=made(home), passes=passes, seconds=seconds)


def attempt(
    bench: Bench, points: Points | None = None, *, killed_after: float | None = None, count_in: Path | None = None
) -> int:
    """Make the run, or go on with it, in a process of its own -> its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        _child(bench, points, count_in)
    if killed_after is not None:
        descriptor = os.pidfd_open(child)
        if not select.select([descriptor], [], [], killed_after)[0]:
            os.kill(child, signal.SIGKILL)
        os.close(descriptor)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _child(bench: Bench, points: Points | None, count_in: Path | None) -> NoReturn:
    """The attempt; whatever comes, it never returns into the campaign."""
    code = BROKEN
    try:
        with bench.log.open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        if points is not None:
            points.watch()
        run(bench.config)
        if count_in is not None and points is not None:
            count_in.write_text(json.dumps({"/".join(point): n for point, n in points.passed.items()}))
        code = ENDED
    except StoppedError:
        code = STOPPED
    except OSError as error:
        print(f"overedit: {error}", file=sys.stderr)
        code = FAILED
    except BaseException:  # this is what a test looks for
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


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
    """Asked to stop."""
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


def inflict_one(bench: Bench, number: int, seed: int) -> Fault:
    """One fault, and the run made again over what it left."""
    begun = time.perf_counter()
    kind = list(KINDS)[number % len(KINDS)]
    shutil.rmtree(bench.home, ignore_errors=True)
    bench.log.write_text("")
    text, mistakes = KINDS[kind](bench, random.Random(f"{seed}:{number}"))
    status = attempt(bench)
    if status != ENDED:
        mistakes.append(f"the run made again ended with {status}:\n{bench.log.read_text()[-3000:]}")
    else:
        mistakes += differences(made(bench.home), bench.wanted)
    return Fault(number, kind, text, mistakes, time.perf_counter() - begun)


def table_of(faults: Sequence[Fault]) -> Table:
    """One row a kind."""
    table = Table("fault", "number", "survived", "seconds")
    for kind in dict.fromkeys(fault.kind for fault in faults):
        mine = [fault for fault in faults if fault.kind == kind]
        survived = sum(not fault.mistakes for fault in mine)
        table.add_row(kind, str(len(mine)), str(survived), f"{sum(fault.seconds for fault in mine):.1f}")
    survived = sum(not fault.mistakes for fault in faults)
    table.add_section()
    table.add_row("all", str(len(faults)), str(survived), f"{sum(fault.seconds for fault in faults):.1f}")
    return table


def main() -> int:
    """Run the campaign; 1 if a run did not survive."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="1/1", help="of several processes, e.g. 2/2 makes every second fault")
    parser.add_argument("--only", type=int, help="the number of one fault, to see it again")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    numbers = range(part - 1, options.faults, parts) if options.only is None else [options.only]
    faults = []
    with tempfile.TemporaryDirectory(prefix="overedit-faults-") as folder:
        bench = prepare(Path(folder).resolve())
        print(f"the undisturbed run took {bench.seconds:.1f} s and passes {sum(bench.passes.values())} points")
        for number in numbers:
            fault = inflict_one(bench, number, options.seed)
            faults.append(fault)
            print(f"{number + 1}/{options.faults} {fault.seconds:.1f} s, {fault.kind}: {fault.text}", flush=True)
            for mistake in fault.mistakes:
                print(f"  NOT SURVIVED (--seed {options.seed} --only {number}): {mistake}", flush=True)
    Console().print(table_of(faults))
    return int(any(fault.mistakes for fault in faults))


if __name__ == "__main__":
    sys.exit(main())
