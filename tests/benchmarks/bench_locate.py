"""The prefixes of all sites of a model, shared and separate: time in turns, equal bits, layer passes counted.

One thread, on a random Llama (hidden size 256, MLP 1,024, vocabulary 2,048), for 6 parts of each of its layers and 50
requests. `prefixes` is the time of the prefixes alone; `sweep` adds the training of every site, whose time is measured
on a few steps and multiplied. Run as `python tests/benchmarks/bench_locate.py [--layers 6] [--rounds 5]`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from overedit.editing.methods.fine_tuning.tuner import Sample, tuning
from overedit.editing.methods.locft_bf import LocftBf
from overedit.editing.model.hooks import frozen
from overedit.editing.model.partial_forward.prefix_cache import Prefix, PrefixOf, compute_prefix
from overedit.editing.model.partial_forward.shared_prefix import SharedPrefix
from overedit.tasks.locate.options import SEARCHED
from tests.benchmarks.random_llama import make_model, make_samples

NUM_REQUESTS, VOCABULARY, EPOCHS = 50, 2048, 25
LARGE = 2**40


class Round(NamedTuple):
    """Seconds of the prefixes of all sites."""

    shared: float
    separate: float


def prefixes(prefix_of: PrefixOf, model: LlamaForCausalLM, sites: list[str], samples: list[Sample]) -> float:
    """Seconds for the prefixes of all sites; each is dropped before the next."""
    sequences = [sample.ids for sample in samples]
    begun = time.perf_counter()
    with frozen(model):
        for site in sites:
            prefix_of(model, site, sequences, max_bytes=LARGE, max_tokens_per_pass=16384)
    return time.perf_counter() - begun


def equal(one: Prefix, other: Prefix) -> bool:
    pairs = ((one.inputs_RX, other.inputs_RX), (one.rest_RD, other.rest_RD))
    return one.start == other.start and all(
        (a is None) == (b is None) and (a is None or torch.equal(a, b)) for a, b in pairs
    )


def check_bits(model: LlamaForCausalLM, sites: list[str], samples: list[Sample]) -> None:
    """Every shared prefix has the bits of the separate one."""
    sequences, shared = [sample.ids for sample in samples], SharedPrefix()
    with frozen(model):
        for site in sites:
            found = (
                prefix_of(model, site, sequences, max_bytes=LARGE, max_tokens_per_pass=16384)
                for prefix_of in (shared, compute_prefix)
            )
            assert equal(*found), site


def training(model: LlamaForCausalLM, sites: list[str], samples: list[Sample]) -> float:
    """Seconds of training all sites for all epochs, from the second of two steps at each."""
    seconds = 0.0
    for site in sites:
        with tuning(model, samples, LocftBf(site=site)) as tuner:
            tuner.step(range(NUM_REQUESTS))
            begun = time.perf_counter()
            tuner.step(range(NUM_REQUESTS))
            seconds += EPOCHS * (time.perf_counter() - begun)
    return seconds


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, samples = (
        make_model(hidden_size=256, num_layers=arguments.layers, vocabulary=VOCABULARY),
        make_samples(NUM_REQUESTS, VOCABULARY),
    )
    sites = [f"{layer}.{part}" for layer in range(arguments.layers) for part in SEARCHED]
    check_bits(model, sites, samples)
    rounds = []
    for _ in range(arguments.rounds):
        shared = prefixes(SharedPrefix(), model, sites, samples)
        rounds.append(Round(shared, prefixes(compute_prefix, model, sites, samples)))
    trained = training(model, sites, samples)
    print(f"{len(sites)} sites, {NUM_REQUESTS} requests, {arguments.rounds} rounds in turns, one thread")
    print("every shared prefix has the bits of the separate one\n")
    print(f"shared prefixes, s          : {spread([one.shared for one in rounds])}, median (least to most)")
    print(f"separate prefixes, s        : {spread([one.separate for one in rounds])}")
    print(f"separate / shared           : {spread([one.separate / one.shared for one in rounds])}x")
    whole = [(trained + one.separate) / (trained + one.shared) for one in rounds]
    print(f"with {EPOCHS} epochs of training : {spread(whole)}x ({trained:.0f} s of training)")


if __name__ == "__main__":
    main()
