"""Registering the timetable with a Prefect server, by Prefect's own command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import overedit

WORK_POOL = "overedit"
GPU_TAG = "gpu"


def deploy_all() -> None:
    """Create the work pool and the limit of one task per GPU, and register all deployments of this checkout.

    Raises:
        ValueError: Overedit is not run from a checkout, which the workers need.
        RuntimeError: Prefect's command line failed; its own output says why.
    """
    checkout = Path(overedit.__path__[0]).parent
    prefect_file = checkout / "deployments" / "prefect.yaml"
    if not prefect_file.is_file():
        raise ValueError(f"there is no {prefect_file}; overedit deploy works in a checkout of Overedit")
    for command in (
        ("work-pool", "create", WORK_POOL, "--type", "process", "--overwrite"),
        ("concurrency-limit", "create", GPU_TAG, "1"),
        ("--no-prompt", "deploy", "--all", "--prefect-file", str(prefect_file)),
    ):
        done = subprocess.run([sys.executable, "-m", "prefect", *command], cwd=checkout, check=False)
        if done.returncode:
            raise RuntimeError(f"prefect {' '.join(command)} failed with exit code {done.returncode}")
