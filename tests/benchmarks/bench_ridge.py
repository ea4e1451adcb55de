"""UltraEdit's solve at Llama-3-8B's down_proj: the dual form against the primal form.

One thread, each form in a process of its own, equal results asserted; times are CPU seconds, which on an idle machine
are wall seconds. Run as `python tests/benchmarks/bench_ridge.py [--repeats 7]` (the primal form alone takes a minute).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from overedit.editing.methods.gradients.ridge import ridge_update
from tests.benchmarks.counting import Counted


class Solved(NamedTuple):
    seconds: list[float]
    extra_bytes: int
    """Peak resident memory above what the inputs and the weight take."""
    gflop: float
    gigabytes: float


def solve_once(form: str, widths: Sequence[int], repeats: int, result: Path) -> Solved:
    """Solve and write in this process, which must be a fresh one: a process's peak memory never goes down."""
    width_in, width_out, rows = widths
    torch.manual_seed(0)
    keys, targets = torch.randn(rows, width_in) / 10, torch.randn(rows, width_out, dtype=torch.float64)
    weight = torch.zeros(width_out, width_in)
    small = torch.randn(64, 64)
    torch.linalg.solve(small @ small.T + torch.eye(64), small)  # libraries are loaded here

    def dual() -> None:
        change = ridge_update(keys, targets, 1.0, in_out=False)
        weight.addmm_(change.left, change.right)

    def primal() -> None:
        gram = keys.T @ keys
        gram.diagonal().add_(1.0)
        weight.add_(torch.linalg.solve(gram, keys.T @ targets.float()).T)

    weight.zero_()
    work, seconds = {"dual": dual, "primal": primal}[form], []
    before = memory_bytes("VmRSS")
    for _ in range(repeats):
        weight.zero_()
        begun = time.process_time()
        work()
        seconds.append(time.process_time() - begun)
    extra = memory_bytes("VmHWM") - before
    save_file({"weight": weight}, result)
    flop = 2 * width_in**2 * rows + 2 * width_in**3 / 3 + 2 * width_in**2 * width_out + 2 * rows * width_in * width_out
    moved = 4 * (2 * width_in**2 + 3 * width_in * width_out + 2 * rows * width_in)
    if form == "dual":
        with Counted() as counted:
            work()
        flop, moved = sum(counted.flop.values()), counted.bytes
    return Solved(seconds, extra, flop / 1e9, moved / 1e9)


def memory_bytes(field: str) -> int:
    """Of this process: VmRSS, resident now, or VmHWM, the most that ever was (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024


def bench_solve(widths: Sequence[int], repeats: int) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        solved, weights = {}, {}
        for form, times in (("dual", repeats), ("primal", 1)):
            out = Path(folder) / f"{form}.safetensors"
            command = [sys.executable, __file__, "--form", form, "--repeats", str(times), "--out", str(out), "--widths"]
            answer = subprocess.run([*command, *map(str, widths)], check=True, capture_output=True, text=True).stdout
            solved[form], weights[form] = Solved(*json.loads(answer)), load_file(out)["weight"]
    error = float((weights["dual"] - weights["primal"]).norm() / weights["primal"].norm())
    assert error < 1e-3, error
    print(f"UltraEdit, solve and write, {widths[0]:,} -> {widths[1]:,}, {widths[2]} rows, one thread")
    print(f"{'form':<10}{'CPU s':>10}{'low - high':>20}{'GFLOP':>10}{'GB moved':>10}{'extra memory':>15}")
    for form, (seconds, extra, gflop, moved) in solved.items():
        spread = f"{min(seconds):.3f} - {max(seconds):.3f}" if len(seconds) > 1 else "once"
        print(f"{form:<10}{statistics.median(seconds):>10.3f}{spread:>20}{gflop:>10.1f}{moved:>10.2f}", end="")
        print(f"{extra / 2**20:>11.0f} MiB")
    ratio = statistics.median(solved["primal"].seconds) / statistics.median(solved["dual"].seconds)
    share = solved["dual"].extra_bytes / solved["primal"].extra_bytes
    met = ratio >= 20 and share <= 0.2
    print(f"ratio {ratio:.1f}x (goal 20x), memory {share:.3f} of the primal's (goal 0.2), ", end="")
    print(f"relative difference {error:.1e}: {'met' if met else 'MISSED'}\n")
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--widths", type=int, nargs=3, default=(14336, 4096, 400), help="in, out, rows")
    parser.add_argument("--form", choices=("dual", "primal"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.form:
        print(json.dumps(solve_once(options.form, options.widths, options.repeats, options.out)))
    else:
        bench_solve(options.widths, options.repeats)


if __name__ == "__main__":
    main()
