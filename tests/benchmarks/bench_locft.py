"""LocFT-BF with and without the frozen prefix: time of a step, equal losses, operations and bytes counted.

One thread against one thread, step by step in turns, on a random Llama (hidden size 512, MLP 2,048, 8 layers,
vocabulary 8,192) with `6.down_proj` trained on 100 requests, a full batch a step. Two more columns give the scale: the
same steps as a plain transformers loop (padded batch, all logits), and the floor (operations at the measured rate of
matrix products). Run as `python tests/benchmarks/bench_locft.py [--steps 25]`.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from overedit.editing.methods.fine_tuning.tuner import Sample, Tuner, tuning
from overedit.editing.methods.locft_bf import LocftBf
from tests.benchmarks.random_llama import make_model, make_samples

SITE, EPOCHS, NUM_REQUESTS, VOCABULARY = "6.down_proj", 25, 100, 8192


class Arm(NamedTuple):
    name: str
    seconds: list[float]
    losses: list[float]
    gflop: float


def plain_step(model: LlamaForCausalLM, samples: list[Sample]) -> Callable[[], float]:
    """The published step in plain transformers calls: one padded batch, attention mask, logits everywhere."""
    length = max(len(sample.ids) for sample in samples)
    ids = torch.zeros(len(samples), length, dtype=torch.int64)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = torch.tensor(sample.ids)
        mask[row, : len(sample.ids)] = 1
        labels[row, list(sample.positions)] = torch.tensor(sample.labels)
    model.requires_grad_(False)
    weight = model.get_parameter("model.layers.6.mlp.down_proj.weight").requires_grad_()
    optimizer = torch.optim.Adam([weight], 5e-4, fused=True)

    def step() -> float:
        optimizer.zero_grad()
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        per_sample = nll.view_as(labels).sum(1) / (labels != -100).sum(1)
        loss = per_sample.mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def matrix_rate(rows: int = 512, repeats: int = 40) -> float:
    """Median rate of the model's own matrix product (rows x 512 by 512 x 2,048), in GFLOP/s."""
    left, right = torch.randn(rows, 512), torch.randn(512, 2048)
    rates = []
    for _ in range(repeats):
        begun = time.perf_counter()
        left @ right
        rates.append(2 * rows * 512 * 2048 / (time.perf_counter() - begun) / 1e9)
    return statistics.median(rates)


def measure(steps: dict[str, Callable[[], float]], repeats: int) -> tuple[list[Arm], list[float]]:
    """Count each arm's operations on its first step, then time the arms in turns, with the matrix rate in between."""
    arms = []
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            loss = step()
        arms.append(Arm(name, [], [loss], counter.get_total_flops() / 1e9))
    rates = []
    for _ in range(repeats):
        rates.append(matrix_rate())
        for arm in arms:
            begun = time.perf_counter()
            arm.losses.append(steps[arm.name]())
            arm.seconds.append(time.perf_counter() - begun)
    return arms, rates


def report(arms: list[Arm], rates: list[float], prefix_seconds: float, tuner: Tuner) -> None:
    frozen, plain = arms[0], arms[1]
    rate = statistics.median(rates)
    print(
        f"LocFT-BF, {SITE} of 8 layers, {NUM_REQUESTS} requests a step, {len(frozen.seconds)} timed steps, one thread"
    )
    print(f"matrix products: {rate:.1f} GFLOP/s (median; {min(rates):.1f} to {max(rates):.1f} over the run)\n")
    print(f"{'arm':<24}{'step, median':>14}{'quartiles':>18}{'GFLOP':>9}{'floor':>9}{'of floor':>10}")
    for arm in arms:
        median, (low, _, high) = statistics.median(arm.seconds), statistics.quantiles(arm.seconds, n=4)
        floor = arm.gflop / rate
        print(
            f"{arm.name:<24}{median:>12.3f} s{low:>9.3f} - {high:.3f}{arm.gflop:>9.1f}{floor:>7.3f} s"
            f"{median / floor:>9.2f}x"
        )
    ratios = [b / a for a, b in zip(frozen.seconds, plain.seconds, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    run = EPOCHS * statistics.median(plain.seconds) / (prefix_seconds + EPOCHS * statistics.median(frozen.seconds))
    gap = max(abs(a - b) for a, b in zip(frozen.losses, plain.losses, strict=True))
    print(
        f"\nstep, without / with prefix : {median:.2f}x (quartiles {low:.2f} - {high:.2f}), pairs of neighbouring steps"
    )
    print(f"{EPOCHS} epochs, prefix counted  : {run:.2f}x (prefix computed once, {prefix_seconds:.2f} s)")
    print(f"largest loss difference     : {gap:.1e} nats over {len(frozen.losses)} steps, to {frozen.losses[-1]:.4f}")
    kept, each = tuner.prefix.num_bytes, tuner.prefix.num_bytes // len(tuner.prefix.ids_R)
    print(f"kept activations            : {kept:,} bytes ({tuner.prefix.start}), {each:,} a token")
    goal = run >= 1.8 and gap < 1e-4
    print(f"goal (>= 1.8x, equal losses): {'met' if goal else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12, help="timed steps of each arm")
    repeats = parser.parse_args().steps
    torch.set_num_threads(1)
    model, samples = (
        make_model(hidden_size=512, num_layers=8, vocabulary=VOCABULARY),
        make_samples(NUM_REQUESTS, VOCABULARY),
    )
    others = [copy.deepcopy(model) for _ in range(2)]
    batch = list(range(NUM_REQUESTS))
    begun = time.perf_counter()
    with tuning(model, samples, LocftBf(site=SITE)) as frozen:
        prefix_seconds = time.perf_counter() - begun
        with tuning(others[0], samples, LocftBf(site=SITE, frozen_prefix=False)) as whole:
            steps = {
                "with frozen prefix": lambda: frozen.step(batch),
                "without": lambda: whole.step(batch),
                "plain transformers loop": plain_step(others[1], samples),
            }
            report(*measure(steps, repeats), prefix_seconds, frozen)


if __name__ == "__main__":
    main()
