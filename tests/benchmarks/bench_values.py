"""Value optimization (ROME's v*, MEMIT's z) of 64 requests on a small Llama, against the plain loop.

One thread against one thread, in turns, equal values asserted; times are CPU seconds, which on an idle machine are
wall seconds. The plain arm takes one request at a time: its prompts and the KL prompt in one padded batch, the whole
model, logits everywhere, a gradient of delta only. It is timed on every sixteenth request; all figures are per request.
Operations and bytes of the same requests are counted at the dispatcher and set against the measured rate of the
model's own matrix products.
Run as `python tests/benchmarks/bench_values.py [--repeats 3]`.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.functional import kl_div
from transformers import LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from overedit.editing.methods.locate_then_edit.subjects import PromptSet
from overedit.editing.methods.locate_then_edit.value_options import ValueOptions
from overedit.editing.methods.locate_then_edit.values import optimize_values
from overedit.editing.model.tokenization import MarkedSequence, pad
from tests.benchmarks.bench_ultraedit import VOCABULARY, make_model, matrix_rate
from tests.benchmarks.counting import Counted

NUM_REQUESTS, LAYER, EVERY = 64, 4, 16
OPTIONS = ValueOptions(num_steps=20, stop_below=0, learning_rate=0.02)
"""A step that this model's values (norm 2) bear: one that is clamped every time would only show how rounding grows."""


def make_prompt_sets(*, middle: float = 0.5) -> list[PromptSet]:
    """Random words with the lengths of CounterFact's: prompts of 5-9 tokens, subjects of 2-4, targets of 1-2.

    Args:
        middle: Share of requests whose subject has one to three tokens before it, as in "The mother tongue of ...".
    """
    draw = random.Random(0)

    def words(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(VOCABULARY) for _ in range(draw.randint(low, high)))

    contexts = [(), *(words(9, 11) for _ in range(5))]
    is_a = words(2, 2)
    prompt_sets = []
    for _ in range(NUM_REQUESTS):
        lead = words(1, 3) if draw.random() < middle else ()
        subject, target = words(2, 4), words(1, 2)
        length = draw.randint(max(5, len(lead) + len(subject) + 1), 9)
        rest = words(*[length - len(lead) - len(subject)] * 2)
        prompt = (*lead, *subject, *rest, *target[:-1])
        place = len(lead) + len(subject) - 1
        prompts = tuple(MarkedSequence((*context, *prompt), len(context) + place, target) for context in contexts)
        prompt_sets.append(PromptSet(prompts, MarkedSequence((*subject, *is_a), len(subject) - 1)))
    return prompt_sets


def plain_value(model: LlamaForCausalLM, site: str, prompt_set: PromptSet, options: ValueOptions) -> torch.Tensor:
    """One request the ordinary way; its delta."""
    sequences = [*prompt_set.prompts, prompt_set.kl]
    ids_BT = pad([s.ids for s in sequences], value=0)
    mask_BT = pad([[1] * len(s.ids) for s in sequences], value=0)
    rows, places = torch.arange(len(sequences)), torch.tensor([s.position for s in sequences])
    target = torch.tensor(prompt_set.prompts[0].target)
    reads = torch.stack([torch.arange(len(s.ids) - len(target), len(s.ids)) for s in prompt_set.prompts])
    width = model.config.hidden_size
    delta = torch.zeros(width, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=options.learning_rate)
    layer, part = site.split(".")
    module = model.model.layers[int(layer)] if part == "layer" else model.model.layers[int(layer)].mlp
    initial = first_log_p = torch.empty(0)

    def shift(_: object, __: object, out: torch.Tensor) -> torch.Tensor:
        nonlocal initial
        initial = out[0, places[0]].detach() if not initial.numel() else initial
        out = out.clone()
        out[rows, places] += delta
        return out

    handle = module.register_forward_hook(shift)
    for step in range(options.num_steps):
        adam.zero_grad()
        log_p = model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).logits.log_softmax(-1)
        kl_log_p = log_p[-1, places[-1]][None]
        first_log_p = kl_log_p.detach() if not step else first_log_p
        nll = -log_p[rows[:-1, None], reads, target[None]].mean(1).mean()
        kl = options.kl_factor * kl_div(first_log_p, kl_log_p, log_target=True, reduction="batchmean")
        loss = nll + kl + options.weight_decay * delta.norm() / initial.norm() ** 2
        if loss < options.stop_below or step + 1 == options.num_steps:
            break
        loss.backward()
        adam.step()
        with torch.no_grad():
            delta.mul_((options.clamp_norm_factor * initial.norm() / delta.norm()).clamp(max=1))
    handle.remove()
    return delta.detach()


class Arm(NamedTuple):
    run: Callable[[Sequence[PromptSet]], torch.Tensor]
    prompt_sets: Sequence[PromptSet]
    """What it is timed and counted on."""
    seconds: list[float]
    """Of each repeat, per request."""
    counted: Counted


def bench(site: str, repeats: int) -> bool:
    model, prompt_sets = make_model(), make_prompt_sets()
    model.requires_grad_(False)

    def ours(some: Sequence[PromptSet]) -> torch.Tensor:
        return optimize_values(model, site, some, OPTIONS).delta_ND

    def plain(some: Sequence[PromptSet]) -> torch.Tensor:
        return torch.stack([plain_value(model, site, prompt_set, OPTIONS) for prompt_set in some])

    arms = {"batched": Arm(ours, prompt_sets, [], Counted()), "plain": Arm(plain, prompt_sets[::EVERY], [], Counted())}
    for arm in arms.values():  # also the warm-up
        with arm.counted:
            arm.run(arm.prompt_sets)
    rates, found = [], {}
    for _ in range(repeats):
        around = []
        for name, arm in arms.items():
            around.append(matrix_rate(model, torch.float32))
            begun = time.process_time()
            found[name] = arm.run(arm.prompt_sets)
            arm.seconds.append((time.process_time() - begun) / len(arm.prompt_sets))
        around.append(matrix_rate(model, torch.float32))
        rates.append(statistics.mean(around))
    expected = found["plain"]
    error = float(((found["batched"][::EVERY] - expected).norm(dim=1) / expected.norm(dim=1)).max())
    assert error < 1e-3, error
    return report(site, arms, rates, error)


def report(site: str, arms: dict[str, Arm], rates: list[float], error: float) -> bool:
    print(f"values at {site}, {OPTIONS.num_steps} steps, {len(rates)} repeats, one thread; per request", end="; ")
    low, middle, high = (found / 1e9 for found in statistics.quantiles(rates, n=4))
    print(f"matrix products at {middle:.1f} GFLOP/s (quartiles {low:.1f} - {high:.1f})")
    print(
        f"{'arm':<10}{'requests/s':>11}{'ms':>9}{'quartiles':>18}{'GFLOP':>9}{'GB':>8}{'floor, ms':>11}{'of floor':>10}"
    )
    for name, arm in arms.items():
        low, middle, high = (found * 1e3 for found in statistics.quantiles(arm.seconds, n=4))
        num_counted = len(arm.prompt_sets)
        flop = sum(arm.counted.flop.values()) / num_counted
        floors = [flop / rate for rate in rates]
        share = statistics.median(second / floor for second, floor in zip(arm.seconds, floors, strict=True))
        print(f"{name:<10}{1e3 / middle:>11.2f}{middle:>9.1f}{f'{low:.1f} - {high:.1f}':>18}{flop / 1e9:>9.2f}", end="")
        print(f"{arm.counted.bytes / num_counted / 1e9:>8.2f}{statistics.median(floors) * 1e3:>11.1f}{share:>9.2f}x")
    ratios = [b / a for a, b in zip(arms["batched"].seconds, arms["plain"].seconds, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"ratio {middle:.2f}x (quartiles {low:.2f} - {high:.2f}, goal 3x): ", end="")
    print(f"{'met' if middle >= 3 else 'MISSED'}; relative difference of the values {error:.1e}\n")
    return middle >= 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench(f"{LAYER}.mlp", options.repeats)


if __name__ == "__main__":
    main()
