"""Faults in the processes that a run has started: Prefect's server and vLLM's engine. The run outlives both.

`overedit run` is started as a person starts it, and its child is killed at a moment drawn from the seed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import yaml

from overedit.flows.config.models import BenchmarkConfig

COMMAND = (sys.executable, "-c", "from overedit.flows.cli.main import main; main()", "run")
SERVER, ENGINE = "uvicorn", "overedit.tasks.engine.server"
"""Words of their command lines."""
SECONDS_TO_COME_THIS_FAR = 300.0


class Lost(NamedTuple):
    """What happened."""

    text: str
    was_hit: bool
    status: int
    said: str


def begin(config: BenchmarkConfig, folder: Path) -> subprocess.Popen[bytes]:
    """A run with a Prefect server of its own; what it says goes to `log.txt`."""
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(json.loads(config.model_dump_json())))
    settings = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_CLIENT_MAX_RETRIES": "1",  # seconds less to wait for a server that is gone
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen([*COMMAND, str(path)], env=os.environ | settings, stdout=log, stderr=log)


def undisturbed(config: BenchmarkConfig, folder: Path) -> None:
    """Make the run.

    Raises:
        RuntimeError: It did not end well.
    """
    status = begin(config, folder).wait()
    if status:
        raise RuntimeError(f"the undisturbed run ended with {status}:\n{(folder / 'log.txt').read_text()[-3000:]}")


def lose(config: BenchmarkConfig, folder: Path, draw: random.Random, *, word: str, at: str, within: float) -> Lost:
    """Make the run, and kill its child.

    Args:
        config: The run; its home is emptied before.
        folder: Of the log and the server's files.
        draw: Says how many seconds later.
        word: Of the child's command line.
        at: The file (a pattern below the home) that must be there before.
        within: The most seconds later.
    """
    shutil.rmtree(config.home, ignore_errors=True)
    run = begin(config, folder)
    deadline = time.monotonic() + SECONDS_TO_COME_THIS_FAR
    while not any(config.home.glob(at)) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    seconds = draw.uniform(0, within)
    time.sleep(seconds)
    killed = [os.kill(child, signal.SIGKILL) for child in children(run.pid, word)]
    status = run.wait()
    text = f"killed {seconds:.2f} s after {at}"
    return Lost(text, bool(killed), status, (folder / "log.txt").read_text()[-3000:])


def children(process: int, word: str) -> list[int]:
    """The processes that a process has started and whose command line holds a word."""
    listed = Path(f"/proc/{process}/task/{process}/children")
    found = [int(child) for child in listed.read_text().split()] if listed.exists() else []
    return [child for child in found if word.encode() in Path(f"/proc/{child}/cmdline").read_bytes()]
