"""A whole turn of UltraEdit, 100 edits on a small Llama, against the paper as it stands.

One thread against one thread, in turns, equal results asserted; times are CPU seconds, which on an idle machine are
wall seconds. Operations and bytes are counted at the dispatcher (matrix products, attention, decompositions) and set
against the measured rate of the model's own matrix products. Run as
`python tests/benchmarks/bench_ultraedit.py [--repeats 9]`.
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from overedit.editing.methods import ultraedit as method
from overedit.editing.methods.gradients import answer_gradients as answer_rows
from overedit.editing.methods.gradients.turn import loss_batches
from overedit.editing.methods.ultraedit import UltraEdit
from overedit.editing.model.hooks import Trace, traced
from overedit.editing.model.tokenization import TokenPair, encode_requests
from overedit.editing.model.weights import apply_update, checksum
from overedit.editing.requests import EditRequest
from tests.benchmarks.counting import Counted
from tests.support.oracles import IGNORED, pad_pairs

VOCABULARY, NUM_EDITS, RATE = 8192, 100, 1e-6
ARMS = {
    "down_proj of layers 6, 7": ("6.down_proj", "7.down_proj"),
    "gate_proj, up_proj of layers 2-5": tuple(f"{i}.{part}" for part in ("gate_proj", "up_proj") for i in range(2, 6)),
}
STAGES = ("forward", "backward", "solve", "write")


Rates = dict[torch.dtype, float]


class Turn(NamedTuple):
    seconds: dict[str, float]
    update: dict[str, torch.Tensor]


def matrix_rate(model: LlamaForCausalLM, dtype: torch.dtype, rows: int = 512, rounds: int = 3) -> float:
    """Rate in FLOP/s of bare matrix products: every projection of the model's layers, one after the other.

    Three rounds take about as long as half a turn: a shorter look would see the machine's moods, not its rate.
    """
    weights = [
        module.weight.detach().to(dtype).T for module in model.model.layers.modules() if hasattr(module, "in_features")
    ]
    inputs = {width: torch.randn(rows, width, dtype=dtype) for width in {weight.shape[0] for weight in weights}}
    begun = time.process_time()
    for weight in weights * rounds:
        inputs[weight.shape[0]] @ weight
    return 2 * rows * rounds * sum(weight.numel() for weight in weights) / (time.process_time() - begun)


def measured_rates(model: LlamaForCausalLM) -> Rates:
    return {
        torch.float64: matrix_rate(model, torch.float64, rounds=1),
        torch.float32: matrix_rate(model, torch.float32),
    }


def make_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=VOCABULARY,
        max_position_embeddings=128,
    )
    return LlamaForCausalLM(config).eval()


def make_requests() -> tuple[PreTrainedTokenizerFast, list[EditRequest]]:
    """Random words with the lengths of short questions: prompts of 6-18 tokens, answers of 2-6."""
    inner = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCABULARY)}, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    draw = random.Random(0)

    def words(low: int, high: int) -> str:
        return " ".join(f"w{draw.randrange(VOCABULARY)}" for _ in range(draw.randint(low, high)))

    requests = [EditRequest(case_id=str(i), prompt=words(6, 18), target_new=words(2, 6)) for i in range(NUM_EDITS)]
    return PreTrainedTokenizerFast(tokenizer_object=inner), requests


def plain_turn(model: LlamaForCausalLM, pairs: Sequence[TokenPair], config: UltraEdit) -> Turn:
    """The paper as it stands: batches of 10, full logits, weight gradients kept, the primal solve."""
    names = [answer_rows.Anatomy.of(model).site_module(site) for site in config.sites]
    modules = [model.get_submodule(name) for name in names]
    model.requires_grad_(False)
    seconds = dict.fromkeys(STAGES, 0.0)
    rows: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in modules]
    for module in modules:
        module.weight.requires_grad_(True)
    for batch in loss_batches(pairs, config):
        padded = pad_pairs([pairs[i] for i in batch], pad_id=0)
        begun = time.process_time()
        with traced(model, names) as trace:
            logits = model(
                input_ids=padded.input_ids_BT, attention_mask=padded.attention_mask_BT, use_cache=False
            ).logits
        loss = cross_entropy(logits.flatten(0, 1), padded.labels_BT.flatten(), ignore_index=IGNORED)
        for out in trace.outputs.values():
            out.retain_grad()
        seconds["forward"] += time.process_time() - begun
        begun = time.process_time()
        loss.backward()
        asked = padded.labels_BT != IGNORED
        for kept, name in zip(rows, names, strict=True):
            gradient = trace.outputs[name].grad
            assert gradient is not None
            kept.append((trace.inputs[name][asked], gradient[asked]))
        seconds["backward"] += time.process_time() - begun
    begun = time.process_time()
    changes = primal(rows)
    seconds["solve"] = time.process_time() - begun
    begun = time.process_time()
    with torch.no_grad():
        for module, change in zip(modules, changes, strict=True):
            module.weight.add_(change.T)
            module.weight.grad = None
    seconds["write"] = time.process_time() - begun
    return Turn(seconds, {f"{name}.weight": change.T for name, change in zip(names, changes, strict=True)})


def primal(rows: list[list[tuple[torch.Tensor, torch.Tensor]]]) -> list[torch.Tensor]:
    """Normalise the features of all modules together (they are of one shape); (H^T H + I)^-1 H^T V for each."""
    stacked = [(torch.cat([k for k, _ in parts]), torch.cat([g for _, g in parts])) for parts in rows]
    features = torch.cat([torch.cat(pair, 1) for pair in stacked])
    mean, std = features.mean(0), features.std(0)
    changes = []
    for keys, gradients in stacked:
        normal = (torch.cat([keys, gradients], 1) - mean) / std
        width = keys.shape[1]
        targets = -RATE * normal[:, :width].square().sum(1, keepdim=True) * normal[:, width:]
        gram = keys.T @ keys + torch.eye(width)
        changes.append(torch.linalg.solve(gram, keys.T @ targets))
    return changes


@contextmanager
def timed(owner: Any, name: str, into: dict[str, float], stage: str) -> Iterator[None]:
    """Add the time of every call of a function to a stage."""
    function = getattr(owner, name)

    def measured(*args: Any, **kwargs: Any) -> Any:
        begun = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            into[stage] += time.process_time() - begun

    setattr(owner, name, measured)
    try:
        yield
    finally:
        setattr(owner, name, function)


def our_turn(model: LlamaForCausalLM, tokenizer: Any, requests: list[EditRequest], config: UltraEdit) -> Turn:
    parts = dict.fromkeys(("trace", "backward"), 0.0)
    begun = time.process_time()
    with (
        timed(method, "trace_answers", parts, "trace"),
        timed(Trace, "output_gradients", parts, "backward"),
    ):
        result = method.ultraedit(model, tokenizer, requests, config, {})
    edited = time.process_time()
    apply_update(model, result.update)
    written = time.process_time()
    seconds = {
        "forward": parts["trace"] - parts["backward"],
        "backward": parts["backward"],
        "solve": edited - begun - parts["trace"],
        "write": written - edited,
    }
    changes = {name: c.left @ c.right for name, c in result.update.items()}
    return Turn(seconds, changes)


def bench_turn(title: str, sites: tuple[str, ...], repeats: int) -> bool:
    model, config = make_model(), UltraEdit(sites=sites, learning_rate=RATE)
    tokenizer, requests = make_requests()
    pairs = encode_requests(model, tokenizer, requests)
    arms: dict[str, Callable[[], Turn]] = {
        "UltraEdit": lambda: our_turn(copies[0], tokenizer, requests, config),
        "plain": lambda: plain_turn(copies[1], pairs, config),
    }
    turns: dict[str, list[Turn]] = {name: [] for name in arms}
    counts: dict[str, Counted] = {}
    rates: dict[str, list[Rates]] = {name: [] for name in arms}
    for name, run in arms.items():  # also the warm-up
        copies = [copy.deepcopy(model), copy.deepcopy(model)]
        with Counted() as counts[name]:
            run()
    for _ in range(repeats):
        copies = [copy.deepcopy(model), copy.deepcopy(model)]
        found = [measured_rates(model)]  # the rate drifts on a shared machine: each turn is held against those about it
        for name, run in arms.items():
            turns[name].append(run())
            found.append(measured_rates(model))
        for name, before, after in zip(arms, found, found[1:], strict=False):
            rates[name].append({dtype: (before[dtype] + after[dtype]) / 2 for dtype in before})
    ours, plain = turns["UltraEdit"][-1].update, turns["plain"][-1].update
    error = max(float((ours[name] - plain[name]).norm() / plain[name].norm()) for name in plain)
    assert error < 1e-3, error
    assert checksum(model.lm_head.weight) == checksum(copies[0].lm_head.weight)
    return report_turn(title, turns, counts, rates, error)


def report_turn(
    title: str,
    turns: dict[str, list[Turn]],
    counts: dict[str, Counted],
    rates: dict[str, list[Rates]],
    error: float,
) -> bool:
    print(f"UltraEdit, a turn of {NUM_EDITS} edits, {title}, {len(turns['plain'])} repeats, one thread")
    seen = [rate for found in rates.values() for rate in found]
    for dtype in seen[0]:
        low, middle, high = (found / 1e9 for found in statistics.quantiles([rate[dtype] for rate in seen], n=4))
        print(f"{dtype}: {middle:.1f} GFLOP/s in the model's matrix products (quartiles {low:.1f} - {high:.1f})")
    print(f"{'arm':<12}" + "".join(f"{stage:>10}" for stage in STAGES) + f"{'turn, s':>10}{'quartiles':>16}", end="")
    print(f"{'GFLOP':>8}{'GB':>7}{'floor, s':>10}{'of floor':>10}")
    totals, shares = {}, {}
    for name, runs in turns.items():
        totals[name] = [sum(turn.seconds.values()) for turn in runs]
        low, middle, high = statistics.quantiles(totals[name], n=4)
        floors = [sum(flop / rate[dtype] for dtype, flop in counts[name].flop.items()) for rate in rates[name]]
        shares[name] = statistics.median(total / floor for total, floor in zip(totals[name], floors, strict=True))
        stages = "".join(f"{statistics.median(turn.seconds[stage] for turn in runs):>10.3f}" for stage in STAGES)
        print(f"{name:<12}{stages}{middle:>10.3f}{low:>9.3f} - {high:.3f}", end="")
        print(f"{sum(counts[name].flop.values()) / 1e9:>8.1f}{counts[name].bytes / 1e9:>7.2f}", end="")
        print(f"{statistics.median(floors):>10.3f}{shares[name]:>9.2f}x")
    ratios = [b / a for a, b in zip(totals["UltraEdit"], totals["plain"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    share = shares["UltraEdit"]
    print(
        f"ratio {middle:.2f}x (quartiles {low:.2f} - {high:.2f}, goal 1.3x): {'met' if middle >= 1.3 else 'MISSED'}; ",
        end="",
    )
    print(f"{share:.2f} of the floor (goal 1.20): {'met' if share <= 1.2 else 'MISSED'}; ", end="")
    print(f"relative difference {error:.1e}\n")
    return middle >= 1.3 and share <= 1.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for title, sites in ARMS.items():
        bench_turn(title, sites, options.repeats)


if __name__ == "__main__":
    main()
