"""Machines of Ray emulated on this one: nodes with logical GPUs in a network namespace of their own, as root.

Ray listens on all addresses; in the namespace there is only the loopback address, and nothing outside reaches it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.support.operation import COMMAND, until
from tests.support.paths import REPOSITORY

PORT = 6399
_TRIES = 6  # a start fails where Ray's processes wait in vain for each other, a quarter or half a minute


class RayNodes:
    """A head and further nodes.

    Args:
        folder: For what the processes say, and Prefect's files.
        num_cpus: Of each node.
        num_gpus: Logical ones of each node.
    """

    def __init__(self, folder: Path, *, num_cpus: int, num_gpus: int) -> None:
        self.folder, self.each = folder, ["--num-cpus", str(num_cpus), "--num-gpus", str(num_gpus)]
        self.namespace = f"overedit-{os.getpid()}"
        self.temporary = tempfile.mkdtemp(prefix="r", dir="/tmp")  # short: sockets have long paths below
        self.nodes: list[subprocess.Popen[bytes]] = []
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "RAY_"))}
        self.environment = plain | {
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "15",  # of the nodes' -15: workers have 0, and a busy machine starves them not
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(folder / "prefect" / "storage"),
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "240",
        }

    def __enter__(self) -> Self:
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        subprocess.run(["ip", "netns", "exec", self.namespace, "ip", "link", "set", "lo", "up"], check=True)
        try:
            self.add("--head", "--port", str(PORT), "--include-dashboard=false", "--temp-dir", self.temporary)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.inside():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for node in self.nodes:
            node.wait()
        until(lambda: True if not self.inside() else None, seconds=60, what="the processes end")
        subprocess.run(["ip", "netns", "delete", self.namespace], check=True)

    def add(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a node, and wait until it has joined."""
        options = arguments or ("--address", f"127.0.0.1:{PORT}")
        for _ in range(_TRIES):
            log = self.folder / f"node-{len(self.nodes)}.log"
            # Ray's own processes wait half a minute for each other and give up
            command = ["nice", "-n", "-15", sys.executable, "-m", "ray.scripts.scripts", "start", *options, *self.each]
            node = self.start([*command, "--object-store-memory", "104857600", "--block"], log)
            self.nodes.append(node)
            what = f"a node starts: {log}"
            if until(lambda: _has_started(node, log), seconds=300, what=what):  # noqa: B023
                return node
            for pid in self.inside() if arguments else ():
                os.kill(pid, signal.SIGKILL)  # what a head that has not started leaves
        raise AssertionError(f"no node could be started: {log.read_text()}")

    def start(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a command inside."""
        with log.open("ab") as stream:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.namespace, *command],
                cwd=REPOSITORY,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def overedit(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a command of Overedit inside."""
        return self.start([sys.executable, "-c", COMMAND, *arguments], log)

    def inside(self) -> dict[int, str]:
        """The processes inside: id -> command line, or the title that a worker of Ray's has."""
        found = subprocess.run(
            ["ip", "netns", "pids", self.namespace], capture_output=True, text=True, check=True
        ).stdout.split()
        return {pid: title for pid in map(int, found) if (title := _title(pid))}

    def workers(self, title: str) -> list[int]:
        """The workers with such a title, e.g. `ray::Editor.edit` for one that is editing."""
        return sorted(pid for pid, text in self.inside().items() if text.startswith(title))

    def kill_node(self, node: subprocess.Popen[bytes]) -> None:
        """Kill a node's raylet, with what started it: as if the machine were gone."""
        raylets = [pid for pid in _below(node.pid) if "raylet/raylet" in _title(pid)]
        assert len(raylets) == 1
        for pid in (raylets[0], node.pid):
            os.kill(pid, signal.SIGKILL)


def _has_started(node: subprocess.Popen[bytes], log: Path) -> bool | None:
    if node.poll() is not None:
        return False
    return True if "Ray runtime started" in log.read_text() else None


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _below(pid: int) -> list[int]:
    with suppress(FileNotFoundError, ProcessLookupError):
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return children + [one for child in children for one in _below(child)]
    return []
