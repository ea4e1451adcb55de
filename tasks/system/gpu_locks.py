"""GPUs, held by one process at a time: a model that is edited and an engine never meet on one by accident.

Whoever needs a GPU claims it by a lock named after the GPU itself (its UUID), so it makes no difference under which
number CUDA_VISIBLE_DEVICES shows it. The claim is between the processes of one user on one machine, whether they came
from the command line or from Prefect. Prefect's own limit on the tag `gpu` says how many tasks of one server run at
once, and shows the others as waiting in the UI; with it at the number of GPUs, a task that runs finds one to claim.
Between users, or inside a container that hides the temporary folder, a scheduler has to part them.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from overedit.tasks.system.locks import SECONDS_BETWEEN_LOOKS, holder, write_holder

logger = logging.getLogger(__name__)


def visible_gpus() -> tuple[str, ...]:
    """The UUIDs of the GPUs that this process may use, in CUDA's order; CUDA_VISIBLE_DEVICES is CUDA's to heed."""
    if not torch.cuda.is_available():
        return ()
    return tuple(str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count()))


@contextmanager
def gpu_lock(*, first: bool = False) -> Iterator[None]:
    """Hold a GPU while the block runs, and make it the one that torch uses; without any GPU nothing is held.

    Args:
        first: Only the first visible one will do, as vLLM takes that one.
    """
    gpus = visible_gpus()
    with one_held(gpus[:1] if first else gpus) as index:
        if index is not None:
            torch.cuda.set_device(index)
        try:
            yield
        finally:
            if index is not None:
                torch.cuda.empty_cache()  # what torch keeps for itself is the next one's


@contextmanager
def one_held(uuids: Sequence[str], folder: Path | None = None) -> Iterator[int | None]:
    """Hold one of several GPUs, the first that is free; wait, and say for whom, while there is none.

    A process that holds one already may claim it again: it shares with itself on purpose.

    Args:
        uuids: Which ones will do.
        folder: Where the locks are; the user's own by default.

    Yields:
        Its place among `uuids`; None if there are none.
    """
    if not uuids:
        yield None
        return
    folder = folder or claims_folder()
    locks = [
        # one object a file and process, which counts its claims
        FileLock(folder / uuid, is_singleton=True, thread_local=False, fallback_to_soft=False, on_acquired=write_holder)
        for uuid in uuids
    ]
    index = _first_free(locks)
    if index is None:
        holders = ", ".join(f"{uuid} is held by {holder(folder / uuid)}" for uuid in uuids)
        logger.warning("waiting for a GPU: %s", holders)
    while index is None:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        index = _first_free(locks)
    try:
        yield index
    finally:
        locks[index].release()


def claims_folder() -> Path:
    """This user's folder of claims, in the temporary folder.

    Not in XDG_RUNTIME_DIR: a login shell has one and a service often none, and both must look at the same place.
    """
    folder = Path(tempfile.gettempdir()) / f"overedit-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _first_free(locks: Sequence[FileLock]) -> int | None:
    for index, lock in enumerate(locks):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        return index
    return None
