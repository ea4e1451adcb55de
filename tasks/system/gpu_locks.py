"""GPU locks: one process holds a GPU at a time, so that editing and an engine never share one by accident.

A lock is named after the GPU's UUID, so the numbers in CUDA_VISIBLE_DEVICES do not matter. It works between the
processes of one user on one machine, started from the command line, by Prefect or by Ray. Who waits for whom:

- `execution: {engine: local}`: Prefect's limit on the tag `gpu` is how many tasks of one server run at once; it shows
  the others as waiting in the UI, and should be the number of GPUs. The lock makes sure that no two share one.
- `execution: {engine: ray}`: Ray assigns GPUs to its workers, and their tasks do not have the tag. A worker locks its
  whole GPUs as long as it lives, against processes that Ray does not know. One with a share of a GPU locks nothing.

Between users, or in a container that hides the temporary folder, a scheduler has to assign the GPUs.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from overedit.tasks.system.locks import SECONDS_BETWEEN_LOOKS, holder, write_holder

logger = logging.getLogger(__name__)

NO_CLAIMS = "OVEREDIT_SHARES_GPU"
"""The environment variable of a process that shares its GPUs on purpose, as a scheduler has assigned them."""


def visible_gpus() -> tuple[str, ...]:
    """The UUIDs of the GPUs that this process may use, in CUDA's order (CUDA applies CUDA_VISIBLE_DEVICES)."""
    if not torch.cuda.is_available():
        return ()
    return tuple(str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count()))


@contextmanager
def gpu_lock(*, first: int | None = None) -> Iterator[None]:
    """Lock a GPU while the block runs, and make torch use it; without GPUs, or with a share of one, it does nothing.

    Args:
        first: Lock this many GPUs, the first visible ones and no others, as vLLM uses those.
    """
    gpus = () if NO_CLAIMS in os.environ else visible_gpus()
    with ExitStack() as locked:
        # one after another, in the same order in every process, so that no two wait for each other
        groups = [gpus] if first is None else [(uuid,) for uuid in gpus[:first]]
        index = next(iter([locked.enter_context(lock_one_gpu(group)) for group in groups]), None)
        if index is not None:
            torch.cuda.set_device(index)
        try:
            yield
        finally:
            if index is not None:
                torch.cuda.empty_cache()  # torch's cached memory is free for the next holder


@contextmanager
def lock_one_gpu(uuids: Sequence[str], folder: Path | None = None) -> Iterator[int | None]:
    """Lock one of several GPUs, the first free one; wait, and log the holders, while none is free.

    A process that holds a GPU may lock it again: it shares it with itself on purpose.

    Args:
        uuids: The GPUs to choose from.
        folder: The folder of the lock files; the user's own by default.

    Yields:
        The index of the GPU in `uuids`; None if `uuids` is empty.
    """
    if not uuids:
        yield None
        return
    folder = folder or gpu_locks_folder()
    locks = [
        # one object per file and process, which counts its acquisitions
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


def gpu_locks_folder() -> Path:
    """This user's folder of GPU lock files, in the temporary folder.

    It is not in XDG_RUNTIME_DIR: a service often has none, and must use the same folder as a login shell.
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
