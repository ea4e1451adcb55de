"""The undisturbed run, and attempts at it: each in a process that is forked from one that has imported everything.

The forking process starts no threads, and does not use torch itself.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple, NoReturn

from overedit.editing.trajectory.interruption import StoppedError
from overedit.flows.config.models import BenchmarkConfig
from tests.faults.comparison import Made, made
from tests.faults.fault_points import Point, Points
from tests.faults.small_run import configuration, run, warm_up, write_inputs
from tests.support.tiny_llama import write_tiny_llama

ENDED, FAILED, STOPPED, BROKEN = 0, 1, 130, 70
"""How an attempt ends."""


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


def prepare(folder: Path) -> Bench:
    """Make the undisturbed run."""
    inputs, home = folder / "inputs", folder / "home"
    write_inputs(inputs)
    write_tiny_llama(folder / "model", head_dim=32)
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
