"""Locks between real processes; their holders end in every way that a process can."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overedit.tasks.system.gpu_locks import lock_one_gpu
from overedit.tasks.system.locks import HeldError, check_free, file_lock, holder

HOLD = """
import sys
from pathlib import Path
from overedit.tasks.system.locks import file_lock
with file_lock(Path(sys.argv[1]), "run 'r'"):
    print("held", flush=True)
    sys.stdin.readline()
"""
HOLD_A_GPU = """
import sys
from pathlib import Path
from overedit.tasks.system.gpu_locks import lock_one_gpu
with lock_one_gpu(sys.argv[2:], Path(sys.argv[1])) as index:
    print(index, flush=True)
    sys.stdin.readline()
"""
FOUR_AT_ONCE = """
import sys, time
from pathlib import Path
from overedit.tasks.system.locks import HeldError, file_lock
folder, number = Path(sys.argv[1]), sys.argv[2]
(folder / f"ready-{number}").touch()
while len(list(folder.glob("ready-*"))) < 4:
    time.sleep(0.001)
try:
    with file_lock(folder / "lock", "run 'r'"):
        print("one runs", flush=True)
        while len(list(folder.glob("told-*"))) < 3:
            time.sleep(0.001)
except HeldError as error:
    (folder / f"told-{number}").touch()
    print(error)
"""


def started(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextmanager
def process(script: str, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds something, and the line it says when it does."""
    with started(script, *arguments) as holding:
        assert holding.stdout is not None
        try:
            yield holding, holding.stdout.readline().strip()
        finally:
            holding.kill()


def test_the_second_one_is_told_by_whom(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    with process(HOLD, path) as (holding, _):
        says = rf"run 'r' is being worked on by process {holding.pid} on \S+ since 2\d{{3}}-\d\d-\d\d .* UTC; wait"
        with pytest.raises(HeldError, match=says), file_lock(path, "run 'r'"):
            pytest.fail("two held it")
        with pytest.raises(HeldError):
            check_free(path, "run 'r'")
        holding.communicate("end\n")
    assert holding.returncode == 0
    assert not path.exists(), "nothing stays behind"
    with file_lock(path, "run 'r'") as had_to_wait:
        assert not had_to_wait


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_holder_that_is_killed_holds_no_longer(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "lock"
    with process(HOLD, path) as (holding, _):
        os.kill(holding.pid, number)
        holding.wait()
    assert f"process {holding.pid} on" in holder(path), "what it left is stale"
    check_free(path, "run 'r'")
    with file_lock(path, "run 'r'"):
        assert holder(path).startswith(f"process {os.getpid()} on")


@pytest.mark.parametrize("text", [b"", b"process 1 on here\n", b"\xff\x1b[2J" * 99_999])
def test_what_a_file_says_blocks_nobody_and_does_nothing_to_a_terminal(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "lock"
    path.write_bytes(text)
    assert "\x1b" not in holder(path)
    assert 0 < len(holder(path)) < 2_000
    with file_lock(path, "run 'r'"):
        assert path.read_text().startswith(f"process {os.getpid()} on")


def test_of_four_at_the_same_moment_one_runs(tmp_path: Path) -> None:
    processes = [started(FOUR_AT_ONCE, tmp_path, number) for number in range(4)]
    said = [each.communicate(timeout=60)[0].strip() for each in processes]
    (runs,) = [each.pid for each, line in zip(processes, said, strict=True) if line == "one runs"]
    told = [line for line in said if line != "one runs"]
    assert len(told) == 3
    assert all(f"by process {runs} on" in line for line in told), told


def test_waiting_ends_with_the_holder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "lock"
    with process(HOLD, path) as (holding, _):
        assert holding.stdin is not None
        holding.stdin.write("end\n")
        holding.stdin.close()  # it ends in a moment, which may be before or after the next line
        with file_lock(path, "run 'r'", wait=True) as had_to_wait:
            assert holder(path).startswith(f"process {os.getpid()} on")
    lines = [record.message for record in caplog.records]
    assert ("run 'r' is being worked on by" in " ".join(lines)) == had_to_wait, "by whom is gone when it ends just then"


def test_two_threads_of_a_process_exclude_each_other(tmp_path: Path) -> None:
    """A worker may run two flows in one process."""
    from concurrent.futures import ThreadPoolExecutor

    with file_lock(tmp_path / "lock", "run 'r'"), ThreadPoolExecutor(1) as other:
        assert isinstance(other.submit(check_free, tmp_path / "lock", "run 'r'").exception(), HeldError)


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    check_free(tmp_path / "run" / "lock", "run 'r'")
    assert list(tmp_path.iterdir()) == []


def test_each_process_gets_a_gpu_of_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two real processes and two pretended GPUs, which the second sees in the other order."""
    with process(HOLD_A_GPU, tmp_path, "GPU-a", "GPU-b") as (first, index):
        assert index == "0"
        with lock_one_gpu(["GPU-a", "GPU-b"], tmp_path) as mine, lock_one_gpu(["GPU-b"], tmp_path) as again:
            assert (mine, again) == (1, 0), "one process may share with itself"
            with process(HOLD_A_GPU, tmp_path, "GPU-b", "GPU-c") as (_, index):
                assert index == "1"
            assert caplog.records == []
        first.kill()  # and what it held is free
        with lock_one_gpu(["GPU-a"], tmp_path) as index_now:
            assert index_now == 0
    with lock_one_gpu([], tmp_path) as none:
        assert none is None


def test_whoever_waits_for_a_gpu_says_for_whom(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with process(HOLD_A_GPU, tmp_path, "GPU-a") as (first, _):
        second = subprocess.Popen(
            [sys.executable, "-c", HOLD_A_GPU, str(tmp_path), "GPU-a"], stderr=subprocess.PIPE, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with second:
            assert second.stderr is not None and second.stdout is not None
            line = second.stderr.readline()
            assert f"waiting for a GPU: GPU-a is held by process {first.pid} on" in line
            first.kill()
            assert second.stdout.readline() == "0\n", "the claim ended with its holder"
            second.kill()


def test_editing_holds_the_gpu_that_torch_uses(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overedit.editing.requests import EditRequest
    from overedit.tasks.data.request_store import RequestStore
    from overedit.tasks.editing_job.job import EditingJob, run_editing_job
    from overedit.tasks.models.reference import ModelReference

    used: list[int] = []
    monkeypatch.setattr("overedit.tasks.system.gpu_locks.visible_gpus", lambda: ("GPU-a", "GPU-b"))
    monkeypatch.setattr("overedit.tasks.system.gpu_locks.gpu_locks_folder", lambda: tmp_path)
    monkeypatch.setattr("torch.cuda.set_device", used.append)
    monkeypatch.setattr(
        "overedit.tasks.editing_job.job.load_placed", lambda *_, **__: pytest.fail(holder(tmp_path / "GPU-b"))
    )
    method = {"method": "ft_m", "site": "1.down_proj"}
    job = EditingJob.model_validate({"model": ModelReference(str(tiny_model)), "method": method, "edit_counts": (1,)})
    request = EditRequest(case_id="a", prompt="The sky is", target_new="red")
    with (
        process(HOLD_A_GPU, tmp_path, "GPU-a"),
        pytest.raises(pytest.fail.Exception, match=f"process {os.getpid()} on"),
    ):
        run_editing_job(job, RequestStore([request]), tmp_path / "order-0")
    assert used == [1]
    with process(HOLD_A_GPU, tmp_path, "GPU-b") as (_, index):
        assert index == "0", "it is free again"
