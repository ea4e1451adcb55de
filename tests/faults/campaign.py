"""A campaign of faults: `python -m tests.faults.campaign --faults 200 --seed 0`.

A small real run is made once, undisturbed. Then, fault by fault, it is begun in a process that is killed, terminated,
starved of disk or whose files are damaged at a place drawn from the seed; the same run is made again over what is left,
and must end with the same checkpoints, byte for byte, and the same rows.
"""

from __future__ import annotations

import argparse
import gc
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from overedit.tasks.engine.options import EngineOptions
from tests.faults.attempts import ENDED, Bench, attempt, prepare
from tests.faults.comparison import differences, made
from tests.faults.kinds import KINDS, expect
from tests.faults.lost_processes import ENGINE, SERVER, lose, undisturbed

SERVER_KILLED, ENGINE_KILLED = "Prefect's server killed", "vLLM's engine killed"


class Fault(NamedTuple):
    """One of the campaign."""

    number: int
    kind: str
    text: str
    """What was done, in words."""
    mistakes: list[str]
    seconds: float


def lose_processes(bench: Bench, kind: str, number: int, seed: int) -> Iterator[Fault]:
    """Runs whose server, or whose engine, is killed; they are not made again, since they go on to their end."""
    config, wanted, word, at = bench.config, bench.wanted, SERVER, "runs/*/run.json"
    if kind == ENGINE_KILLED:
        config = config.model_copy(update={"engine": EngineOptions(kind="vllm", enforce_eager=True)})
        word, at = ENGINE, "warehouse/outcomes/**/*.parquet"
        shutil.rmtree(bench.home, ignore_errors=True)
        undisturbed(config, bench.folder)
        wanted = made(bench.home)
    for index in range(number):
        begun = time.perf_counter()
        draw = random.Random(f"{seed}:{kind}:{index}")
        lost = lose(config, bench.folder, draw, word=word, at=at, within=bench.seconds)
        mistakes = expect(lost.status, ENDED) or differences(made(bench.home), wanted)
        mistakes += [] if lost.was_hit else ["there was nothing to kill"]
        said = [lost.said] if mistakes else []
        yield Fault(index, kind, lost.text, mistakes + said, time.perf_counter() - begun)


def can_lose_engines() -> bool:
    """Whether vLLM is here, in a process of its own."""
    return find_spec("vllm") is not None and find_spec("overedit.tasks.engine.server") is not None


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
    parser.add_argument("--servers", type=int, default=0, help="how many runs lose Prefect's server, at a minute each")
    parser.add_argument("--engines", type=int, default=0, help="how many runs lose vLLM's engine, at two minutes each")
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
        engines = options.engines if can_lose_engines() else 0
        for kind, count in ((SERVER_KILLED, options.servers), (ENGINE_KILLED, engines)):
            for fault in lose_processes(bench, kind, count, options.seed) if count else ():
                faults.append(fault)
                print(f"{fault.seconds:.1f} s, {kind}: {fault.text}", *fault.mistakes, sep="\n  ", flush=True)
    gc.unfreeze()  # or what was imported is reported as leaked
    Console().print(table_of(faults))
    return int(any(fault.mistakes for fault in faults))


if __name__ == "__main__":
    sys.exit(main())
