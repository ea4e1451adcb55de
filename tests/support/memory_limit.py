"""A process under a memory limit, where control groups can be made (Linux, as root, version 1)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup/memory")


def run_limited(command: list[str], limit_bytes: int | None) -> subprocess.CompletedProcess[str]:
    """Run a command whose memory, mapped files included, may not exceed a limit; without a limit if there can be none.

    Args:
        command: The command and its arguments.
        limit_bytes: The limit; None for none.
    """
    group = GROUPS / f"overedit-{os.getpid()}"
    limited = limit_bytes is not None and os.access(GROUPS, os.W_OK) and (GROUPS / "memory.limit_in_bytes").exists()
    if limited:
        group.mkdir(exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
        command = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh", *command]
    try:
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    finally:
        if limited:
            group.rmdir()
